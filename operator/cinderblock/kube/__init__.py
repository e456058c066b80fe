"""The API server: one thin asynchronous client, plain dicts in and out.

kind: where objects of a type live in the API. credentials: who we are, from a kubeconfig or from inside a pod.
transport: one HTTP exchange: time limit, identity, retries of reads. answers: an HTTP answer as an error of ours.
client: the verbs. callers: clients that act for
somebody else. events: Events that are counted, not repeated. lookups: questions that need more than one field.
"""
