"""Raw files to pictures, or to Bayer raw files, composed from the rooms."""

from quantisp.api_demosaic.files import demosaic_files
from quantisp.api_demosaic.settings import DemosaicedFile, DemosaicSettings

__all__ = ["DemosaicSettings", "DemosaicedFile", "demosaic_files"]
