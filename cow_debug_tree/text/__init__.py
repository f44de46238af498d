"""Text from columns: thousands of lines at a time, without a loop over lines.

Every kind of line is a format string. Its rows become one byte matrix, literals copied into all rows at once,
numbers looked up four digits at a time; where a number is shorter than the longest of its column, NUL bytes
fill the row. All rows are put in their places in one buffer, and deleting NUL bytes from it leaves the text.
"""
