"""The manifest: the one object that makes a backup exist.

`header`, `footer` and `section_encoder`/`section_decoder` hold its parts; `reader` and `writer` the whole object.
`pin_checks` compares it with the expected backup, `comparison` records how the backup found changed files.
"""
