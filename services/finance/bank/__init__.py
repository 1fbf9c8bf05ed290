"""Payment channels: how an order reaches the bank, and how its answer comes back."""

from services.finance.bank.batch_file import BatchFileChannel
from services.finance.bank.channel import (
    Batch,
    Payment,
    PayoutChannel,
    ResultFile,
    ResultFileRefused,
    ResultLine,
)

CHANNEL: PayoutChannel = BatchFileChannel()

__all__ = [
    "CHANNEL",
    "Batch",
    "Payment",
    "PayoutChannel",
    "ResultFile",
    "ResultFileRefused",
    "ResultLine",
]
