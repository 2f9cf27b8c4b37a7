"""OTLP transports: gRPC (`grpc`) and HTTP (`http`), with status codes for failures (`status`).

The contract of every receiver:

1. It answers success only after `Pipeline.accept` returned, which is after the ledger committed.
2. Bodies are bounded before and after decompression; nothing of a body is kept after the answer.
3. It answers a failure with the code from `status.py`: retryable if a retry can help, else permanent.
4. A bad span fails alone: it is counted in `partial_success`, the other spans of the request are booked.
"""
