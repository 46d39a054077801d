"""What a script begins with that is to run as where hf-gpt is not installed."""

REFUSE_PLUGIN = """
import json
import sys
from importlib.abc import MetaPathFinder


class Refuse(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hf_gpt":
            raise ImportError("not installed in this test")


sys.meta_path.insert(0, Refuse())
"""
