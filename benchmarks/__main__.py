"""`make bench`: every benchmark, one after the other, beside other programs where they are installed or named."""

from __future__ import annotations

import subprocess
import sys

from benchmarks import lora_manager, training_speed

#: Each in a process of its own: what one has loaded is not another's memory or speed.
ALL = ("overhead", "library", "hashing", "algorithms", "matrix", "switching", "switching_real", "serving")

if __name__ == "__main__":
    for name in ALL:
        print(f"## {name}\n", flush=True)
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *sys.argv[1:]], check=True)
    print("## training_speed\n", flush=True)
    training_speed.main()
    print("## lora_manager\n", flush=True)
    lora_manager.main()
