"""Why the database cannot be used."""


class SchemaError(Exception):
    """It is not one of ours: a newer version of the platform wrote it, or it cannot hold what we write."""


class StoreAway(Exception):
    """The database server cannot be reached, or does not do in time what it is asked. Trying again may help."""
