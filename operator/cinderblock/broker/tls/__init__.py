"""The certificate of the broker, its authority, and the Secret that keeps both."""
