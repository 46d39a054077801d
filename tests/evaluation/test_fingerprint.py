"""What identifies a checkpoint under evaluation follows its contents, whatever their size and times say."""

import os

from hf_gpt.evaluation.tasks.loading import fingerprint


def test_other_contents_of_the_same_size_and_time_are_another_model(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"abcd")
    first, stat = fingerprint(str(tmp_path)), weights.stat()
    weights.write_bytes(b"abdc")
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert fingerprint(str(tmp_path)) != first
    weights.write_bytes(b"abcd")
    # Copied or touched, it is the same one.
    assert fingerprint(str(tmp_path)) == first
