"""Leaves folders that are nested too deep, or closed."""

import os

os.makedirs("/sandbox/closed/inner")
open("/sandbox/closed/inner/file", "w").close()
os.chmod("/sandbox/closed/inner", 0)
os.chmod("/sandbox/closed", 0)
for _ in range(3000):
    os.mkdir("deep")
    os.chdir("deep")
