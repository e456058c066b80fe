"""The store on S3. Only this package imports boto3.

client: a boto3 client, configured for our use. address: endpoint and container, as messages name them.
slice: a part of a body that is sent at once. part: a piece of a body that is its own request (S3: multipart upload).
"""
