"""What can go wrong in an export."""


class ExportError(ValueError):
    """A model that cannot be exported as asked; the message names the file or field and the fix."""
