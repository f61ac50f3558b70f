"""Writes the golden files of this folder with NumPy and the reference safetensors package.

    pip install ml_dtypes numpy safetensors && python3 make_golden.py

tests/core/safetensors_test.cpp, npy_test.cpp and npz_test.cpp hold the same values and compare.
"""

import pathlib

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

HERE = pathlib.Path(__file__).parent


def ramp(dtype, *shape):
    """0, 1, 2, ... in row-major order."""
    return np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape).astype(dtype)


def npy(name, array):
    np.save(HERE / f"{name}.npy", array)


# What tally writes must equal these byte for byte.
save_file({}, HERE / "empty.safetensors")
save_file(
    {
        "b.weight": ramp("<f4", 2, 3),
        "a.weight": ramp("<f4", 3) + np.float32(0.5),
        "codes": ramp("u1", 5),
        "ids": ramp("<i8", 2, 2) - 1,
        "rows": ramp("<i4", 1, 3),
        "check": ramp("<f8", 2) / 3,
        "scalar": np.array(7, dtype="<f4"),
        "none": np.zeros((0, 4), dtype="<f4"),
        'quote"\\\n\u00e9': ramp("u1", 1),
    },
    HERE / "written.safetensors",
    # One key: the reference writes several in an order that changes from run to run.
    metadata={"note": 'a "b"\n\u00e9'},
)
npy("f4_2x3", ramp("<f4", 2, 3))
npy("f8_4", ramp("<f8", 4) / 3)
npy("i4_scalar", np.array(-7, dtype="<i4"))
npy("i8_0x5", np.zeros((0, 5), dtype="<i8"))
npy("u1_2x3x4", ramp("u1", 2, 3, 4))
npy("f4_1234567x0", np.zeros((1234567, 0), dtype="<f4"))

# What tally must read, though it writes it otherwise.
save_file(
    {
        "bool": np.array([True, False, True]),
        "i8": np.array([-128, 127], dtype="i1"),
        "i16": np.array([-32768, 32767], dtype="<i2"),
        "u16": np.array([0, 65535], dtype="<u2"),
        "f16": np.array([1.5, -65504, 2.0**-24, 2.0**-14, np.inf, 0.1], dtype="<f2"),
        "u32": np.array([0, 2**32 - 1], dtype="<u4"),
        "u64": np.array([0, 2**63 - 1], dtype="<u8"),
    },
    HERE / "converted.safetensors",
)
npy("bool_3", np.array([True, False, True]))
npy("i1_2", np.array([-128, 127], dtype="i1"))
npy("i2_2", np.array([-32768, 32767], dtype="<i2"))
npy("u2_2", np.array([0, 65535], dtype="<u2"))
npy("u4_2", np.array([0, 2**32 - 1], dtype="<u4"))
npy("u8_2", np.array([0, 2**63 - 1], dtype="<u8"))
npy("f2_6", np.array([1.5, -65504, 2.0**-24, 2.0**-14, np.inf, 0.1], dtype="<f2"))
npy("bf16_5", np.array([1.5, -65504, 3e38, 2.0**-130, np.inf], dtype=ml_dtypes.bfloat16))
for name, save in {"stored": np.savez, "deflated": np.savez_compressed}.items():
    save(HERE / f"{name}.npz", weight=ramp("<f4", 40, 3) % 5, ids=ramp("<i8", 2, 2) - 1, scalar=np.array(7.5), none=np.zeros((0, 4)))
npy("big_endian_f4_2x3", ramp(">f4", 2, 3))
npy("big_endian_i8_3", ramp(">i8", 3) - 1)
npy("fortran_f8_2x3x4", np.asfortranarray(ramp("<f8", 2, 3, 4)))
with open(HERE / "version2_f4_2x3.npy", "wb") as file:
    np.lib.format.write_array(file, ramp("<f4", 2, 3), version=(2, 0))
with open(HERE / "version3_f4_2x3.npy", "wb") as file:
    np.lib.format.write_array(file, ramp("<f4", 2, 3), version=(3, 0))
