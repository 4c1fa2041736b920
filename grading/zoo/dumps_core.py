"""Asks for a core file as large as it likes and dies in three ways."""

import ctypes
import os
import resource

try:
    resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
except (OSError, ValueError) as error:
    print(error)


def double(x):
    ctypes.string_at(0)


os.abort()
