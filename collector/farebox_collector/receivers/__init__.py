"""OTLP intake: bytes to spans (`protobuf`, `otlp_json`), transports (`grpc`, `http`), failures to codes (`status`).

The contract of a receiver, whatever its transport:

1. It answers success only after `Pipeline.accept` returned, which is after the ledger committed.
2. Bodies are bounded before and after decompression; nothing of a body is kept once it is answered.
3. A failure is answered with the code that `status.py` gives it: retryable where a retry can help, permanent where not.
4. A bad span costs only itself: it is counted in `partial_success`, the good spans beside it are booked.
"""
