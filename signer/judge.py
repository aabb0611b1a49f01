"""
The child end of one secret code that a person chooses: whether it is easy to guess.

Started as `python -I -m signer.judge SOCKET PARENT`, for one question; `code.py` is the other end.

    {"t": "judge", "words": [...]}    {"t": "judged", "weak": ...}

With it comes the code, as an open file in memory. zxcvbn knows the 30 000 passwords that were stolen most often, names,
words, dates and rows of keys, and adds the `words` that whoever guesses would try first: the person's and the service's.
"""

import os
import re
import resource
import socket
import sys
import unicodedata
from typing import Any

from pool import wire
from pool.child import harden, open_socket

# A million guesses: with five before a lock of a quarter of an hour (guesses.py) that is five years of them, each with a
# one-time code to be guessed as well. Eight digits that nobody has chosen for a reason have ten million and more.
GUESSES_MIN = 1_000_000
JUDGED_CHARACTERS = 24  # of the code: the time grows faster than its length, and what follows only makes it harder
CPU_S = 5  # ten times the worst that was found
_JOINTS = re.compile(r"[\W_]+")
# What zxcvbn, which has English words and keyboards, does not know of its own: a French keyboard's rows, and what people who
# speak French build codes from.
_FRENCH = """
  azertyuiop qsdfghjklm wxcvbn poiuytreza mlkjhgfdsq nbvcxw janvier février mars avril mai juin juillet août septembre
  octobre novembre décembre lundi mardi mercredi jeudi vendredi samedi dimanche printemps été automne hiver noël
  vacances anniversaire bonjour bonsoir salut merci amour chéri chérie coeur soleil lune étoile chocolat maison
  famille maman papa enfant bébé chat chaton chien cheval poisson oiseau ordinateur clavier portable téléphone
  internet portail signature secret code passe voiture moto vélo trottinette bateau avion montagne plage océan jardin
  fleur france paris marseille lyon toulouse bordeaux bretagne corse belgique suisse luxembourg football équipe
  champion musique guitare cinéma fromage poireaux tomate pomme fraise princesse licorne dragon loulou doudou nounours
  coucou bisous liberté égalité travail
"""
FRENCH = tuple(_FRENCH.split())


def judge(message: dict[str, Any], code: str) -> dict[str, Any]:
    import zxcvbn  # 25 ms, that the start need not wait for

    words = [reading for word in (*message["words"], *FRENCH) for reading in _readings(word)]
    guesses = [zxcvbn.zxcvbn(reading, user_inputs=words)["guesses"] for reading in _readings(code)]
    return {"t": "judged", "weak": min(guesses) < GUESSES_MIN}


def _readings(text: str) -> set[str]:
    """As it is, without accents and without what joins words: a name with a year behind a hyphen is as easy as without."""
    whole = unicodedata.normalize("NFKC", text).casefold()
    bare = "".join(one for one in unicodedata.normalize("NFKD", whole) if not unicodedata.combining(one))
    found = {text, whole, bare, _JOINTS.sub("", whole), _JOINTS.sub("", bare)}
    return {reading[:JUDGED_CHARACTERS] for reading in found} - {""}


def main() -> None:
    sock = open_socket(int(sys.argv[1]))
    harden()
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    sock.send(wire.pack({"t": "ready"}))
    packet, fds, _, _ = socket.recv_fds(sock, wire.PACKET_BYTES_MAX, 1)
    if not packet:
        return
    [fd] = fds
    code = os.pread(fd, os.fstat(fd).st_size, 0).decode()
    sock.send(wire.pack(judge(wire.unpack(packet), code)))
    while sock.recv(1):  # until the other end has its answer
        pass


if __name__ == "__main__":
    main()
