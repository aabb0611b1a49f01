"""What is said once on the next page after something was done: by a short name, so that a cookie can say no text of its own."""

from collections.abc import Mapping

NOTICES: Mapping[str, str] = {
    "product-added": "The product is registered.",
    "product-removed": "The product is removed.",
    "document-added": "The document is in the archive.",
    "document-removed": "The document is deleted.",
    "information-saved": "The information is saved.",
    "private-space-created": "You have created your private space.",
    "business-space-created": "You have successfully created a business space on {portal_name}.",
}
