"""The store on S3. Only this package imports boto3.

client: a boto3 client with the settings of Cinderblock. address: endpoint and container, as messages name them.
slice: the bytes of a body that are sent at once. part: the bytes of one request of a multipart upload.
"""
