"""A comparison as one HTML file that needs nothing else: no network, no other file, no permission.

A *part* is a piece of that file: a table, a figure, a row of pictures. A *figure* is a plot as data, drawn by the
plotting library that the file brings along. The *document* puts the parts together with their style and script
(`page.css`, `page.js`).

Everything that comes from a run (names, settings, metrics) is text and stays text: it is escaped where it is HTML,
where it is data of a script, and where the plotting library reads markup. A policy in the file's head lets a browser
run the two scripts that the file was made with, by their digests, and nothing else, and load nothing from anywhere.

Touches nothing: whoever asked for the page writes it.
"""

from unbroken.report.page.document import MARK, document

__all__ = ["MARK", "document"]
