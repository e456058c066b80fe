"""The store on S3. The only package that knows boto3 (its core, botocore).

client: a botocore client, made for our way of using it. place: endpoint and container, as messages name them.
slice: a part of a body that is sent at once. part: a piece of a body that is its own request (S3: multipart upload).
"""
