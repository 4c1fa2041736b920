"""Sleeps for as long as it is let, in its cell and in each call, and then says nothing."""

import time


def double(x):
    time.sleep(1e6)


try:
    time.sleep(1e6)
except BaseException as error:
    print(type(error).__name__)
