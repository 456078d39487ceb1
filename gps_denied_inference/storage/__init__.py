"""Files: durable writes, documents, shared folders."""
