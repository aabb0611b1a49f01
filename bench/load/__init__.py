"""The load: client processes that do what they are told and count what came back."""
