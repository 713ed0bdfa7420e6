"""A slide as DICOM (VL Whole Slide Microscopy Image): one level, JPEG tiles, and a patient's name that nobody may read."""

from pathlib import Path

import numpy as np
import simplejpeg
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import JPEGBaseline8Bit, generate_uid

NAME = "Never^Read"
_WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
_TILE = 256


def write_dicom(path: Path, slide: np.ndarray, mpp: float) -> None:
    """Write a picture (uint8 [H, W, 3], RGB), ``mpp`` micrometres a pixel."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = _WHOLE_SLIDE
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = JPEGBaseline8Bit
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID = _WHOLE_SLIDE, meta.MediaStorageSOPInstanceUID
    file.StudyInstanceUID, file.SeriesInstanceUID = generate_uid(), generate_uid()
    file.FrameOfReferenceUID = generate_uid()
    file.PatientName, file.PatientID, file.Modality = NAME, "42", "SM"
    file.ImageType, file.InstanceNumber = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"], 1
    file.SamplesPerPixel, file.PhotometricInterpretation, file.PlanarConfiguration = 3, "YBR_FULL_422", 0
    file.Rows = file.Columns = _TILE
    file.BitsAllocated = file.BitsStored = 8
    file.HighBit, file.PixelRepresentation, file.LossyImageCompression = 7, 0, "01"
    height, width = slide.shape[:2]
    file.TotalPixelMatrixColumns, file.TotalPixelMatrixRows = width, height
    file.TotalPixelMatrixFocalPlanes, file.DimensionOrganizationType = 1, "TILED_FULL"
    measures, shared, path_of_light = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [mpp / 1000, mpp / 1000], 0.001  # millimetres
    shared.PixelMeasuresSequence = Sequence([measures])
    path_of_light.OpticalPathIdentifier = "0"
    file.SharedFunctionalGroupsSequence = Sequence([shared])
    file.OpticalPathSequence, file.NumberOfOpticalPaths = Sequence([path_of_light]), 1
    frames = []
    for top in range(0, height, _TILE):
        for left in range(0, width, _TILE):
            tile = np.full((_TILE, _TILE, 3), 255, np.uint8)
            found = slide[top : top + _TILE, left : left + _TILE]
            tile[: found.shape[0], : found.shape[1]] = found
            frames.append(simplejpeg.encode_jpeg(tile, quality=90, colorspace="RGB", colorsubsampling="422"))
    file.NumberOfFrames = len(frames)
    file.PixelData = encapsulate(frames)
    file["PixelData"].is_undefined_length = True
    file.save_as(path, enforce_file_format=True)
