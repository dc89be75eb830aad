package parquet

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
)

// The encodings of values that are read.
const (
	plain           = 0
	plainDictionary = 2
	deltaLengths    = 6
	deltaPrefixes   = 7
	rleDictionary   = 8
)

// reader reads the pages of one column of one row group.
type reader struct {
	*file
	codec      int64
	optional   bool // values may be null
	rows       int64
	dictionary []string
	texts      []string
}

// page reads the page at from, which ends before end, and returns its size.
func (r *reader) page(from, end int64) (int64, error) {
	head := make([]byte, min(maxHeader, end-from))
	if len(head) > 4096 { // all that most headers take
		head = head[:4096]
	}
	if _, err := r.ReadAt(head, from); err != nil {
		return 0, err
	}
	h, taken, err := decode(head)
	if err != nil && end-from > int64(len(head)) {
		head = make([]byte, min(maxHeader, end-from))
		if _, err := r.ReadAt(head, from); err != nil {
			return 0, err
		}
		h, taken, err = decode(head)
	}
	if err != nil {
		return 0, err
	}
	whole, packed := h.get(2).n, h.get(3).n
	if packed < 0 || packed > end-from-int64(taken) || whole < 0 {
		return 0, errDamaged
	}
	if whole > maxPage || whole > maxText-r.text {
		return 0, fmt.Errorf("a page claims %d bytes, more than the limit of %d for one and %d for all", whole, maxPage, int64(maxText))
	}
	r.text += whole
	data := make([]byte, packed)
	if _, err := r.ReadAt(data, from+int64(taken)); err != nil {
		return 0, err
	}
	return int64(taken) + packed, r.content(h, data, int(whole))
}

// content reads a page of any kind; one that holds no values is passed over.
func (r *reader) content(h value, data []byte, whole int) (err error) {
	switch h.get(1).n {
	case dictionaryPage:
		if data, err = r.unpack(data, whole); err != nil {
			return err
		}
		r.dictionary, err = texts(data, h.get(7).get(1).n)
		return err
	case dataPage:
		if data, err = r.unpack(data, whole); err != nil {
			return err
		}
		var levels []byte
		if r.optional {
			if len(data) < 4 || int64(binary.LittleEndian.Uint32(data)) > int64(len(data)-4) {
				return errDamaged
			}
			n := 4 + int(binary.LittleEndian.Uint32(data))
			levels, data = data[4:n], data[n:]
		}
		return r.values(h.get(5).get(1).n, h.get(5).get(2).n, levels, data)
	case dataPageV2:
		v := h.get(8)
		defined, repetition := v.get(5).n, v.get(6).n
		if defined < 0 || repetition != 0 || defined > int64(len(data)) || defined > int64(whole) {
			return errDamaged
		}
		levels, data := data[:defined], data[defined:]
		if !v.has(7) || v.get(7).n == 1 {
			if data, err = r.unpack(data, whole-int(defined)); err != nil {
				return err
			}
		}
		return r.values(v.get(1).n, v.get(4).n, levels, data)
	}
	return nil
}

// unpack is a page's bytes as they were before they were compressed, which are whole.
func (r *reader) unpack(data []byte, whole int) ([]byte, error) {
	var out []byte
	var err error
	stream := func(in io.Reader) {
		out, err = io.ReadAll(io.LimitReader(in, int64(whole)+1))
	}
	switch r.codec {
	case 0:
		out = data
	case 1:
		if n, err := snappy.DecodedLen(data); err != nil || n != whole {
			return nil, errDamaged
		}
		out, err = snappy.Decode(nil, data)
	case 2:
		var z *gzip.Reader
		if z, err = gzip.NewReader(bytes.NewReader(data)); err == nil {
			stream(z)
		}
	case 6:
		var z *zstd.Decoder
		if z, err = zstd.NewReader(bytes.NewReader(data), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(64<<20)); err == nil {
			stream(z)
			z.Close()
		}
	default:
		return nil, fmt.Errorf("compression %d is not read, only snappy, gzip, zstd and none; write it anew with snappy", r.codec)
	}
	if err != nil || len(out) != whole {
		return nil, errDamaged
	}
	return out, nil
}

// values reads n values, of which those with level 0 are null.
func (r *reader) values(n, encoding int64, levels, data []byte) error {
	if n < 0 || n > r.rows-int64(len(r.texts)) {
		return errDamaged
	}
	defined := make([]bool, 0, min(n, 1<<16))
	present := n
	if r.optional {
		present = 0
		err := runs(levels, 1, n, func(v uint32) error {
			if v > 1 {
				return errDamaged
			}
			defined = append(defined, v == 1)
			present += int64(v)
			return nil
		})
		if err != nil {
			return err
		}
	}
	var all []string
	var err error
	switch encoding {
	case plain:
		all, err = texts(data, present)
	case plainDictionary, rleDictionary:
		if present == 0 {
			break
		}
		if len(data) == 0 || data[0] > 32 {
			return errDamaged
		}
		err = runs(data[1:], int(data[0]), present, func(v uint32) error {
			if int64(v) >= int64(len(r.dictionary)) {
				return errDamaged
			}
			all = append(all, r.dictionary[v])
			return nil
		})
	case deltaLengths:
		all, err = behindLengths(data, present)
	case deltaPrefixes:
		all, err = behindPrefixes(data, present)
	default:
		return fmt.Errorf("encoding %d is not one of texts; write it anew", encoding)
	}
	if err != nil {
		return err
	}
	if !r.optional {
		r.texts = append(r.texts, all...)
		return nil
	}
	for _, there := range defined {
		text := ""
		if there {
			text, all = all[0], all[1:]
		}
		r.texts = append(r.texts, text)
	}
	return nil
}

// texts reads n texts, each behind its length.
func texts(data []byte, n int64) (all []string, err error) {
	if n < 0 || 4*n > int64(len(data)) {
		return nil, errDamaged
	}
	for range n {
		if len(data) < 4 || int64(binary.LittleEndian.Uint32(data)) > int64(len(data)-4) {
			return nil, errDamaged
		}
		end := 4 + int(binary.LittleEndian.Uint32(data))
		all = append(all, string(data[4:end]))
		data = data[end:]
	}
	return all, nil
}

var errRuns = errors.New("its values end too early; the file is damaged, download it again")

// runs reads n numbers of width bits from the format's mixture of runs and of packed groups of eight.
func runs(data []byte, width int, n int64, visit func(v uint32) error) error {
	for n > 0 {
		head, size := binary.Uvarint(data)
		if size <= 0 {
			return errRuns
		}
		data = data[size:]
		if head&1 == 0 {
			bytes := (width + 7) / 8
			if len(data) < bytes || head>>1 == 0 {
				return errRuns
			}
			var v uint32
			for i := range bytes {
				v |= uint32(data[i]) << (8 * i)
			}
			data = data[bytes:]
			for range min(uint64(n), head>>1) {
				if err := visit(v); err != nil {
					return err
				}
			}
			n -= int64(min(uint64(n), head>>1))
			continue
		}
		groups := head >> 1
		if groups == 0 || groups > uint64(n+7)/8 || groups*uint64(width) > uint64(len(data)) {
			return errRuns
		}
		packed := data[:groups*uint64(width)]
		data = data[len(packed):]
		count := min(n, int64(groups)*8)
		for i := range count {
			var v uint32
			for b := range width {
				bit := int(i)*width + b
				v |= uint32(packed[bit/8]>>(bit%8)&1) << b
			}
			if err := visit(v); err != nil {
				return err
			}
		}
		n -= count
	}
	return nil
}
