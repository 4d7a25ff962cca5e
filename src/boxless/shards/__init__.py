"""Many images on many machines: a manifest names them, each shard of it becomes one Parquet part.

>>> from boxless.shards import export_parts, predict_manifest, read_parts, write_manifest
>>> write_manifest("s3://bucket/photos", "photos.parquet")  # doctest: +SKIP
>>> predict_manifest("runs/first", "photos.parquet", "s3://bucket/found")  # doctest: +SKIP
>>> for image in read_parts("s3://bucket/found"):  # doctest: +SKIP
...     print(image.id, image.error or image.detections)
"""

from boxless.shards.manifest import write_manifest
from boxless.shards.parts import PredictedImage, export_parts, read_parts
from boxless.shards.predict import Summary, predict_manifest

__all__ = ["PredictedImage", "Summary", "export_parts", "predict_manifest", "read_parts", "write_manifest"]
