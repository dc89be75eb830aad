package safetensors

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// Entry is one tensor to be written.
type Entry struct {
	Name  string
	DType DType
	Shape []int
	Data  func() ([]byte, error) // gives the tensor's bytes; called once, when their turn in the file comes
}

var errTwice = errors.New("appears twice; give each tensor its own name")

// Bytes is the Data of an Entry whose bytes are at hand.
func Bytes(b []byte) func() ([]byte, error) {
	return func() ([]byte, error) { return b, nil }
}

// Write writes the entries to path as the reference implementation does, byte for byte: the metadata (unless nil)
// first, then the tensors by falling element size, by type, and by name. Each tensor's data is asked for when it is
// written, so that at most one is in memory. The file appears whole or not at all: it grows beside path, is synced, and
// is renamed over it. The folder must exist.
func Write(path string, metadata map[string]string, entries []Entry) error {
	entries = slices.Clone(entries)
	slices.SortStableFunc(entries, inFileOrder)
	header, size, err := encodeHeader(metadata, entries)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return writeFile(path, int64(len(header)+size), func(w io.Writer) error {
		if _, err := w.Write(header); err != nil {
			return err
		}
		for _, e := range entries {
			if err := e.write(w); err != nil {
				return err
			}
		}
		return nil
	})
}

func inFileOrder(a, b Entry) int {
	if a.DType != b.DType {
		return a.DType.rank() - b.DType.rank()
	}
	return strings.Compare(a.Name, b.Name)
}

// encodeHeader is the header with its length, padded to 8 bytes, and the size of the data that follows it.
func encodeHeader(metadata map[string]string, entries []Entry) (header []byte, size int, err error) {
	out := bytes.NewBuffer(make([]byte, 8))
	out.WriteByte('{')
	if metadata != nil {
		writeString(out, metadataKey)
		out.WriteString(":{")
		for i, key := range slices.Sorted(maps.Keys(metadata)) {
			if i > 0 {
				out.WriteByte(',')
			}
			if !utf8.ValidString(key) || !utf8.ValidString(metadata[key]) {
				return nil, 0, fmt.Errorf("metadata %s is not valid UTF-8; encode it", quote(key))
			}
			writeString(out, key)
			out.WriteByte(':')
			writeString(out, metadata[key])
		}
		out.WriteByte('}')
	}
	seen := make(map[string]bool, len(entries))
	for i, e := range entries {
		n, err := e.check()
		if err == nil && seen[e.Name] {
			err = errTwice
		}
		if err != nil {
			return nil, 0, fmt.Errorf("tensor %s: %w", quote(e.Name), err)
		}
		seen[e.Name] = true
		if i > 0 || metadata != nil {
			out.WriteByte(',')
		}
		writeString(out, e.Name)
		fmt.Fprintf(out, `:{"dtype":"%s","shape":%s,"data_offsets":[%d,%d]}`, e.DType, shapeJSON(e.Shape), size, size+n)
		size += n
	}
	out.WriteByte('}')
	for out.Len()%8 != 0 {
		out.WriteByte(' ')
	}
	header = out.Bytes()
	if len(header)-8 > maxHeader {
		return nil, 0, fmt.Errorf("header takes %d bytes, more than the limit of %d; write several files", len(header)-8, maxHeader)
	}
	binary.LittleEndian.PutUint64(header, uint64(len(header)-8))
	return header, size, nil
}

func shapeJSON(shape []int) string {
	return strings.ReplaceAll(fmt.Sprint(shape), " ", ",")
}

// writeString writes s as the reference implementation does, which escapes no more than JSON demands.
func writeString(out *bytes.Buffer, s string) {
	const short = "\"\"\\\\\bb\tt\nn\ff\rr" // each character with the letter of its escape
	out.WriteByte('"')
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			out.WriteByte(c)
		} else if j := strings.IndexByte(short, c); j >= 0 {
			out.WriteByte('\\')
			out.WriteByte(short[j+1])
		} else {
			fmt.Fprintf(out, `\u%04x`, c)
		}
	}
	out.WriteByte('"')
}

// check is the size of the entry's data in bytes, or why Open would refuse it.
func (e Entry) check() (int, error) {
	switch {
	case e.Name == metadataKey || !utf8.ValidString(e.Name):
		return 0, errors.New("name cannot be stored; rename the tensor")
	case e.DType.Size() == 0:
		return 0, fmt.Errorf("dtype %s cannot be stored; use one of %s", quote(string(e.DType)), knownTypes())
	case len(e.Shape) > maxDims || slices.ContainsFunc(e.Shape, func(dim int) bool { return dim < 0 }):
		return 0, fmt.Errorf("shape %v cannot be stored; use up to %d dimensions, none negative", e.Shape, maxDims)
	case e.Data == nil:
		return 0, errors.New("entry has no Data; set it")
	}
	return byteSize(e.DType, e.Shape)
}

func (e Entry) write(w io.Writer) error {
	data, err := e.Data()
	if err != nil {
		return fmt.Errorf("tensor %s: %w", quote(e.Name), err)
	}
	if want, _ := byteSize(e.DType, e.Shape); len(data) != want {
		return fmt.Errorf("tensor %s: %s%v takes %d bytes, but its data has %d; give data of the declared shape",
			quote(e.Name), e.DType, e.Shape, want, len(data))
	}
	_, err = w.Write(data)
	return err
}
