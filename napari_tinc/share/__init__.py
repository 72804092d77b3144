"""A compressed volume as a web page that anybody can open: a viewer and its decoder, with the file in it or beside it.

``page.html`` is built from the TypeScript sources in ``web/`` (``npm run build`` there) and shipped, so that users need
no node; the tests prove that it is what the sources give.
"""

from napari_tinc.share.array import ShareableArray
from napari_tinc.share.page import MOST_EMBEDDED, Shareable, write_folder, write_page

__all__ = ["MOST_EMBEDDED", "Shareable", "ShareableArray", "write_folder", "write_page"]
