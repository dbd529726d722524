"""A comparison as one HTML file that needs nothing else: no network, no other file, no permission.

Everything that comes from a run (names, settings, metrics) is text and stays text: it is escaped where it is HTML,
where it is data of a script, and where the plotting library reads markup. A policy in the file's head lets a browser
run the two scripts that the file was made with, by their digests, and nothing else, and load nothing from anywhere.
"""

from unbroken.report.page.document import MARK, document

__all__ = ["MARK", "document"]
