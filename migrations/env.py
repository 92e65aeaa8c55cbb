"""What Alembic runs. The connection comes from jobs.schema, which holds the lock and the transaction."""

from alembic import context

from jobs.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
