// Package parquet reads columns of text from Parquet files, as far as datasets need it: flat columns of strings, plain or
// with a dictionary, uncompressed or in snappy, gzip or zstd. Files are untrusted: every size is held against the file and
// against limits before anything is allocated.
package parquet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// Limits of what is read, far above any dataset that is trained on here.
const (
	maxFooter = 4 << 20   // bytes of the metadata
	maxHeader = 1 << 20   // of a page's
	maxPage   = 256 << 20 // of a page, uncompressed
	maxText   = 4 << 30   // of all pages, uncompressed
	maxRows   = 5_000_000
)

// The numbers that the format gives to types, repetitions and pages.
const (
	byteArray      = 6
	optional       = 1
	repeated       = 2
	dataPage       = 0
	dictionaryPage = 2
	dataPageV2     = 3
)

// errDamaged is the reason where sizes or counts contradict each other.
var errDamaged = errors.New("sizes or counts contradict each other; the file is damaged, download it again")

// file is an open file.
type file struct {
	io.ReaderAt
	size int64 // of what precedes the metadata
	text int64 // uncompressed bytes read so far
}

// Read reads the named columns of the file at path, a row group at a time, and visits each row in order, counted from 1, with
// the texts in the order of names. A column that the file lacks, and a null, are "". Other columns are not touched; columns
// is told the names of all before the first row. The error of a visit ends it and is returned as it is.
func Read(path string, names []string, columns func(all []string) error, visit func(n int, texts []string) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("not a file; name a .parquet file")
	}
	in, meta, err := open(f, info.Size())
	if err != nil {
		return err
	}
	schema, all, err := flat(meta.get(2).list)
	if err != nil {
		return err
	}
	if err := columns(all); err != nil {
		return err
	}
	n := 0
	for _, group := range meta.get(4).list {
		rows := group.get(3).n
		if rows < 0 || rows > maxRows-int64(n) {
			return fmt.Errorf("it claims more than %d rows; split it", maxRows)
		}
		texts := make([][]string, len(names))
		for i, name := range names {
			c, ok := schema[name]
			if !ok {
				continue
			}
			if texts[i], err = in.column(group, name, c, rows); err != nil {
				return fmt.Errorf("column %q: %w", name, err)
			}
		}
		row := make([]string, len(names))
		for at := range int(rows) {
			for i := range row {
				row[i] = ""
				if texts[i] != nil {
					row[i] = texts[i][at]
				}
			}
			n++
			if err := visit(n, row); err != nil {
				return err
			}
		}
	}
	return nil
}

// open reads the metadata at the file's end.
func open(f io.ReaderAt, size int64) (*file, value, error) {
	var tail [8]byte
	if size < 12 {
		return nil, value{}, fmt.Errorf("the file has %d bytes, too few for Parquet; download it again", size)
	}
	if _, err := f.ReadAt(tail[:], size-8); err != nil {
		return nil, value{}, err
	}
	length := int64(binary.LittleEndian.Uint32(tail[:]))
	switch {
	case string(tail[4:]) == "PARE":
		return nil, value{}, errors.New("it is encrypted; decrypt it first")
	case string(tail[4:]) != "PAR1":
		return nil, value{}, errors.New("it does not end as a Parquet file does; download it again")
	case length > maxFooter:
		return nil, value{}, fmt.Errorf("its metadata claims %d bytes, more than the limit of %d", length, maxFooter)
	case length > size-12:
		return nil, value{}, fmt.Errorf("its metadata claims %d bytes, but the file has %d; download it again", length, size)
	}
	data := make([]byte, length)
	if _, err := f.ReadAt(data, size-8-length); err != nil {
		return nil, value{}, err
	}
	meta, _, err := decode(data)
	return &file{ReaderAt: f, size: size - 8 - length}, meta, err
}

// flat is the schema's elements of the first level by their names, and these in order.
func flat(schema []value) (columns map[string]value, names []string, err error) {
	if len(schema) == 0 {
		return nil, nil, errThrift
	}
	columns = map[string]value{}
	for at := 1; at < len(schema); {
		name := string(schema[at].get(4).bytes)
		columns[name], names = schema[at], append(names, name)
		for open := int64(1); open > 0; at++ { // the element and what is nested in it
			if at >= len(schema) {
				return nil, nil, errThrift
			}
			children := schema[at].get(5).n
			if children < 0 || children > int64(len(schema)) {
				return nil, nil, errThrift
			}
			open += children - 1
		}
	}
	return columns, names, nil
}

// column reads a column's texts in a row group.
func (in *file) column(group value, name string, element value, rows int64) ([]string, error) {
	if element.get(1).n != byteArray || element.get(5).n > 0 || element.get(3).n == repeated {
		return nil, errors.New("it is no column of texts; make it one")
	}
	at := slices.IndexFunc(group.get(1).list, func(chunk value) bool {
		path := chunk.get(3).get(3).list
		return len(path) == 1 && string(path[0].bytes) == name
	})
	if at < 0 {
		return nil, errDamaged
	}
	chunk := group.get(1).list[at]
	if chunk.has(1) {
		return nil, errors.New("its values are in another file; write it anew as one")
	}
	meta := chunk.get(3)
	from, length := meta.get(9).n, meta.get(7).n
	if d := meta.get(11).n; d > 0 && d < from {
		from = d
	}
	if from < 4 || length < 0 || from > in.size || length > in.size-from || meta.get(5).n != rows {
		return nil, errDamaged
	}
	r := reader{file: in, codec: meta.get(4).n, optional: element.get(3).n == optional, rows: rows}
	for end := from + length; from < end && int64(len(r.texts)) < rows; {
		size, err := r.page(from, end)
		if err != nil {
			return nil, err
		}
		from += size
	}
	if int64(len(r.texts)) != rows {
		return nil, errDamaged
	}
	return r.texts, nil
}
