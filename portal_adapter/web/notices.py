"""What is said once on the next page after something was done: by a short name, so that a cookie can say no text of its own."""

from collections.abc import Mapping

NOTICES: Mapping[str, str] = {
    "account-changed": "Your account is changed.",
    "product-added": "The product is registered.",
    "product-removed": "The product is removed.",
    "document-added": "The document is in the archive.",
    "document-removed": "The document is deleted.",
    "procedure-created": "The procedure is created. What is known already is filled in: check it, and fill in the rest.",
    "draft-saved": "The draft is saved. You can resume it at any time.",
    "question-added": "Your answer adds a question to this step.",
    "entry-confirmed": "The entry is confirmed.",
    "procedure-copied": "The procedure is copied: this is the new one.",
    "procedure-deleted": "The procedure is deleted.",
    "attachment-added": "The document is attached.",
    "attachment-removed": "The attachment is removed.",
    "information-saved": "The information is saved.",
    "private-space-created": "You have created your private space.",
    "space-changed": "The data of the space are changed.",
    "certification-asked": "Your request is noted. You will see here when the space is certified.",
    "invitation-sent": "The invitation is on its way.",
    "invitation-withdrawn": "The invitation is withdrawn: its link no longer works.",
    "invitation-accepted": "You are a member of this space now.",
    "invitation-refused": "You have refused the invitation.",
    "role-changed": "The role is changed. It applies from the next click on.",
    "member-removed": "The member is removed, and has no access any more.",
    "space-left": "You have left the space.",
    "business-space-created": "You have successfully created a business space on {portal_name}.",
}
