"""PostgreSQL, Valkey and Kafka as child processes, for machines that have none of them."""
