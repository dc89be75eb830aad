package safetensors

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxHeader is the longest header accepted, the reference implementation's limit.
const maxHeader = 100_000_000

// metadataKey is the one header key that names no tensor.
const metadataKey = "__metadata__"

// maxMetadata bounds the metadata's keys, because a map takes far more memory than its text.
const maxMetadata = 10_000

// minEntry is the length of the shortest tensor entry; it bounds how many a header can hold.
const minEntry = len(`"":{"dtype":"U8","shape":[],"data_offsets":[0,0]}`)

// Tensor is one named array of a safetensors file.
type Tensor struct {
	Name  string
	DType DType
	Shape []int  // outermost first; empty for a scalar
	Data  []byte // little-endian, row-major; aliases the file's bytes, so read-only and gone once the file is closed

	begin int // where Data starts in the data section
}

// Parse reads a whole safetensors file from memory; the tensors alias data. Nothing in data is trusted: the header's
// length, JSON, types, shapes and offsets are checked, the tensors must cover the data section exactly, and what is
// allocated is bounded by a small multiple of the header that is really there. An error says what is wrong and where.
func Parse(data []byte) (*File, error) {
	if bytes.HasPrefix(data, []byte("version https://git-lfs")) {
		return nil, errors.New("file is a Git LFS pointer without the tensors")
	}
	if len(data) < 8 {
		return nil, fmt.Errorf("file has %d bytes, too few for a header length", len(data))
	}
	length := binary.LittleEndian.Uint64(data)
	if length > maxHeader {
		return nil, fmt.Errorf("header claims %d bytes, more than the limit of %d", length, maxHeader)
	}
	if length > uint64(len(data)-8) {
		return nil, fmt.Errorf("header claims %d bytes, but only %d follow", length, len(data)-8)
	}
	header, body := data[8:8+length], data[8+length:]
	if !utf8.Valid(header) {
		return nil, errors.New("header is not valid UTF-8")
	}
	p := &parser{scanner: scanner{data: header}, body: body}
	if err := p.header(); err != nil {
		return nil, fmt.Errorf("header %w", err)
	}
	if err := p.cover(); err != nil {
		return nil, err
	}
	byName, err := order(p.tensors)
	if err != nil {
		return nil, err
	}
	return &File{Metadata: p.metadata, tensors: p.tensors, byName: byName}, nil
}

// parser fills in the tensors of one header.
type parser struct {
	scanner
	body     []byte
	metadata map[string]string
	tensors  []Tensor
}

func (p *parser) header() error {
	if len(p.data) == 0 || p.data[0] != '{' {
		return p.fail("expected an object, '{'")
	}
	p.tensors = make([]Tensor, 0, min(bytes.Count(p.data, []byte(`"data_offsets"`)), len(p.data)/minEntry))
	err := p.object(func(key []byte) error {
		if string(key) == metadataKey {
			return p.readMetadata()
		}
		name := string(key)
		t, err := p.tensor()
		if err != nil {
			return fmt.Errorf("tensor %s: %w", quote(name), err)
		}
		t.Name = name
		p.tensors = append(p.tensors, t)
		return nil
	})
	if err != nil {
		return err
	}
	for ; p.pos < len(p.data); p.pos++ {
		if p.data[p.pos] != ' ' {
			return p.fail("expected only spaces after the object, found %q", p.data[p.pos])
		}
	}
	return nil
}

func (p *parser) readMetadata() error {
	if p.metadata != nil {
		return p.fail("%s appears twice", metadataKey)
	}
	p.metadata = map[string]string{}
	err := p.object(func(key []byte) error {
		name := string(key)
		if _, twice := p.metadata[name]; twice {
			return p.fail("key %s appears twice", quote(name))
		}
		if len(p.metadata) == maxMetadata {
			return p.fail("more than %d keys", maxMetadata)
		}
		value, err := p.text()
		p.metadata[name] = string(value)
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: %w", metadataKey, err)
	}
	return nil
}

// tensor reads the object that describes one tensor and holds it against the data section.
func (p *parser) tensor() (Tensor, error) {
	var t Tensor
	var offsets [2]int
	var haveDType, haveShape, haveOffsets bool
	once := func(have *bool, key []byte) error {
		if *have {
			return p.fail("%s appears twice", key)
		}
		*have = true
		return nil
	}
	err := p.object(func(key []byte) error {
		var err error
		switch string(key) {
		case "dtype":
			if err = once(&haveDType, key); err == nil {
				t.DType, err = p.dtype()
			}
		case "shape":
			if err = once(&haveShape, key); err == nil {
				t.Shape, err = p.shape()
			}
		case "data_offsets":
			if err = once(&haveOffsets, key); err == nil {
				offsets, err = p.offsets()
			}
		default:
			err = p.fail("unknown key %s", quote(string(key)))
		}
		return err
	})
	if err != nil {
		return t, err
	}
	if !haveDType || !haveShape || !haveOffsets {
		return t, p.fail("dtype, shape and data_offsets are all required")
	}
	begin, end := offsets[0], offsets[1]
	if begin > end {
		return t, p.fail("data_offsets end before they begin: [%d,%d]", begin, end)
	}
	if end > len(p.body) {
		return t, p.fail("data_offsets [%d,%d] reach beyond the %d bytes of data", begin, end, len(p.body))
	}
	size, err := byteSize(t.DType, t.Shape)
	if err != nil {
		return t, p.fail("%v", err)
	}
	if size != end-begin {
		return t, p.fail("%s%v takes %d bytes, but data_offsets hold %d", t.DType, t.Shape, size, end-begin)
	}
	t.begin, t.Data = begin, p.body[begin:end:end]
	return t, nil
}

func (p *parser) dtype() (DType, error) {
	name, err := p.text()
	if err != nil {
		return "", err
	}
	for _, d := range fileOrder {
		if string(name) == string(d) {
			return d, nil
		}
	}
	return "", p.fail("dtype %s is not one of %s", quote(string(name)), knownTypes())
}

func (p *parser) shape() ([]int, error) {
	var dims [maxDims]int
	n := 0
	err := p.array(func() error {
		if n == maxDims {
			return p.fail("shape has more than %d dimensions", maxDims)
		}
		var err error
		dims[n], err = p.count()
		n++
		return err
	})
	return slices.Clone(dims[:n]), err
}

func (p *parser) offsets() (pair [2]int, err error) {
	n := 0
	err = p.array(func() error {
		if n == 2 {
			return p.fail("data_offsets hold more than two numbers")
		}
		var err error
		pair[n], err = p.count()
		n++
		return err
	})
	if err == nil && n != 2 {
		err = p.fail("data_offsets hold %d numbers, not two", n)
	}
	return pair, err
}

// cover puts the tensors in file order and checks that they cover the data section without gap or overlap.
func (p *parser) cover() error {
	slices.SortStableFunc(p.tensors, func(a, b Tensor) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(len(a.Data), len(b.Data)))
	})
	end := 0
	for _, t := range p.tensors {
		switch {
		case t.begin < end:
			return fmt.Errorf("tensor %s overlaps the one before it by %d bytes", quote(t.Name), end-t.begin)
		case t.begin > end:
			return fmt.Errorf("%d bytes before tensor %s belong to no tensor", t.begin-end, quote(t.Name))
		}
		end += len(t.Data)
	}
	if end != len(p.body) {
		return fmt.Errorf("%d bytes after the last tensor belong to no tensor", len(p.body)-end)
	}
	return nil
}

// order lists the tensors' positions by name, and refuses two of one name.
func order(tensors []Tensor) ([]int32, error) {
	byName := make([]int32, len(tensors))
	for i := range byName {
		byName[i] = int32(i)
	}
	slices.SortFunc(byName, func(a, b int32) int { return strings.Compare(tensors[a].Name, tensors[b].Name) })
	for i := 1; i < len(byName); i++ {
		if name := tensors[byName[i]].Name; name == tensors[byName[i-1]].Name {
			return nil, fmt.Errorf("tensor %s appears twice", quote(name))
		}
	}
	return byName, nil
}
