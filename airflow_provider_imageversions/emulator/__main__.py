"""``python -m airflow_provider_imageversions.emulator``: the emulator in a terminal."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading

from airflow_provider_imageversions.emulator import Emulator


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_imageversions.emulator",
        description="SageMaker's image API on this machine, for development and tests.",
    )
    parser.add_argument("--port", type=int, default=5000, help="the port; 0 chooses a free one (default: %(default)s)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="the address, which must be a loopback address (default: %(default)s)"
    )
    parser.add_argument(
        "--creation-seconds",
        type=float,
        default=5.0,
        metavar="SECONDS",
        help="seconds that a version stays CREATING or DELETING, and an image DELETING (default: %(default)s)",
    )
    parser.add_argument("--region", default="us-east-1", help="AWS region in the printed hints (default: %(default)s)")
    parser.add_argument("--verbose", action="store_true", help="log each request")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO if arguments.verbose else logging.WARNING)
    try:
        emulator = Emulator(arguments.port, arguments.creation_seconds, host=arguments.host, verbose=arguments.verbose)
    except ValueError as error:
        parser.error(str(error))

    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    with emulator:
        sys.stdout.write(_greeting(emulator, arguments.region))
        sys.stdout.flush()
        stopping.wait()


def _greeting(emulator: Emulator, region: str) -> str:
    return f"""\
SageMaker image emulator on {emulator.endpoint_url}

For the AWS CLI and SDKs:
  export AWS_ENDPOINT_URL={emulator.endpoint_url} AWS_DEFAULT_REGION={region}
  export AWS_ACCESS_KEY_ID=testing AWS_SECRET_ACCESS_KEY=testing
For Airflow:
  export AIRFLOW_CONN_AWS_DEFAULT='{emulator.airflow_connection(region)}'
Ctrl-C stops it.
"""


if __name__ == "__main__":
    main()
