"""Layer formats with a table of contents: a small part of the blob has all names, and files are read by range.

    format.py         what a format is: Chunk, Table, Format
    recognise.py      which format a layer has, by an ordered table
    estargz.py        eStargz and its forerunner stargz
    zstd_chunked.py   zstd:chunked
    toc_json.py       the JSON that both keep their table in, read one entry at a time
    toc.py            its entries as tar entries and chunks
    soci.py           SOCI: gzip layers as they are, and a table beside them
    ztoc.py           that table: names, and checkpoints to inflate from; ztoc_writer.py makes one
    flatbuffer.py     its encoding
    gzip_member.py    the chunks of one compressed member, unpacked and verified

A new format is a file here and a line in recognise.py.
"""
