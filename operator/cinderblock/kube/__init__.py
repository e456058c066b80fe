"""The API server: one thin asynchronous client on the ``kubernetes`` package, plain dicts in and out.

kinds: where the objects of each type live in the API. rest_config: how to reach the API server, and our credentials.
config_source: where that configuration comes from. kubeconfig, exec_plugin: kubeconfig files and their credential
plugins. transport: one HTTP exchange, with its time limit, identity and retries. responses: HTTP responses as our
errors. client: the verbs. token_clients: clients that act for callers. event_recorder: Events that are counted, not
repeated. queries: look-ups that need more than one field.

The connection and its configuration come from the package's ``aio`` half. The verbs are ours: the package has no
guard before writes, no conflict by UID, no list that survives an expired page, and its errors quote whole responses
(docs/decisions). None of its typed APIs is imported: six of them would cost 46 MiB and 0.7 s.
"""
