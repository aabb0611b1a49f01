"""How much of the portal's disk one person may take, in all her spaces together (ASVS 5.2.4)."""

from sqlalchemy import Connection, func, select, union_all

from portal_adapter.domain.actor import Actor
from portal_adapter.refusal import guard
from portal_adapter.settings import Limits
from portal_adapter.store.schema import accounts, attachments, documents


def check(connection: Connection, actor: Actor, size: int, limits: Limits) -> None:
    """
    Raise `guard-failed` `person-full` where a file of `size` bytes would be one too many, or too much. What she has sent
    counts, too: it stays.
    """
    # Held: she may put in several at one time. Not against rows that name her (FOR NO KEY UPDATE).
    connection.execute(select(accounts.c.id).where(accounts.c.id == actor.account).with_for_update(key_share=True))
    put_in = union_all(
        *(select(one.c.size).where(one.c.added_by == actor.account) for one in (documents, attachments))
    ).subquery()
    files, taken = connection.execute(select(func.count(), func.coalesce(func.sum(put_in.c.size), 0))).one()
    if files >= limits.person_files or taken + size > limits.person_bytes:
        message = "You have put in as many files as one person may. Delete those that you no longer need, or ask the help desk."
        raise guard("person-full", message)
