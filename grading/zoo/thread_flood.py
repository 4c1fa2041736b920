"""Starts threads until nothing more can be started."""

import threading
import time

while True:
    threading.Thread(target=time.sleep, args=(60,)).start()
