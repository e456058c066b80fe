"""An S3 server in this process that follows the rules of AWS where other test servers are lenient."""
