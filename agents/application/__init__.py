"""Everything behind the ``textgym`` command."""
