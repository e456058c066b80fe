"""Earlier versions of objects on S3."""
