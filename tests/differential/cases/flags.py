"""The flags of a case."""

FLAGS_PLAIN = ("--web.enable-admin-api",)
FLAGS_UTF8 = ("--web.enable-admin-api", "--push.enable-utf8-names")
