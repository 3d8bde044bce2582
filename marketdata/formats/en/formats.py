"""How the admin writes times: a poll each second is told apart by seconds."""

DATETIME_FORMAT = "Y-m-d H:i:s"
