"""Fills the emulator that docs/quickstart.md starts in another terminal."""

# [START quickstart_emulator]
from airflow_provider_imageversions.emulator import Emulator

emulator = Emulator.connect("http://127.0.0.1:5000")
emulator.create_versions("my-image", 3)
# [END quickstart_emulator]
