package hub

import (
	"bufio"
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// uploads is what a server knows of uploads to its one repository. The large files' content goes to the storage, at links that
// are keys; a link takes one content.
type uploads struct {
	head     string // the newest commit
	missing  bool   // there is no repository yet
	private  bool
	objects  map[string][]byte   // in the storage, by their SHA-256
	begun    map[string]*multi   // uploads in parts, by their ids
	tickets  map[string]*ticket  // links for uploads, by their names
	chunk    int                 // bytes of a part; what is smaller goes whole
	forgets  bool                // every batch begins a new upload
	uses     int                 // contents that the links of a batch take in all, 0 for any number
	ignored  string              // a file that the repository's .gitignore names
	alters   bool                // the storage turns a bit
	received int                 // bytes of content
	cutAt    int                 // content is cut off there, once; below 0 never
	cut      func()              // is called then
	commits  []map[string][]byte // what each commit brought, nil for a large file
	between  func()              // is called before each commit
}

// multi is an upload in parts.
type multi struct {
	oid   string
	size  int
	parts map[int][]byte
}

// ticket is the right to send content, which runs out.
type ticket struct {
	oid, upload string
	left        int
}

func newUploads() uploads {
	return uploads{head: commitA, objects: map[string][]byte{}, begun: map[string]*multi{}, tickets: map[string]*ticket{}, chunk: 32 << 10, cutAt: -1}
}

// answerUpload answers what is posted to the hub.
func (s *server) answerUpload(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	reply := func(v any) { json.NewEncoder(w).Encode(v) }
	path := r.URL.Path
	if r.Header.Get("Authorization") != "Bearer "+secret && path != "/complete" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	switch {
	case path == "/api/repos/create":
		var wanted struct {
			Name, Organization, Type, Visibility string
			Private                              bool
		}
		if json.Unmarshal(body, &wanted) != nil || wanted.Name == "" || wanted.Type != "" && wanted.Type != "model" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		if s.missing {
			s.missing, s.private = false, wanted.Private || wanted.Visibility == "private"
		} else {
			w.WriteHeader(http.StatusConflict)
		}
		reply(map[string]any{"url": s.hub.URL + "/" + wanted.Organization + "/" + wanted.Name})
	case path == "/api/validate-yaml":
		reply(map[string]any{"errors": []any{}, "warnings": []any{}})
	case strings.Contains(path, "/preupload/"):
		s.preupload(w, body)
	case strings.HasSuffix(path, ".git/info/lfs/objects/batch"):
		s.batch(w, r, body)
	case path == "/complete":
		s.complete(w, r, body)
	case path == "/verify":
		var told struct {
			OID  string
			Size int
		}
		if json.Unmarshal(body, &told) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		data := s.objects[told.OID]
		if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != told.OID || len(data) != told.Size {
			delete(s.objects, told.OID)
			w.WriteHeader(http.StatusUnprocessableEntity)
		}
	case strings.Contains(path, "/commit/"):
		s.commit(w, r, body)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (s *server) preupload(w http.ResponseWriter, body []byte) {
	var asked struct {
		Files []struct {
			Path, Sample string
			Size         int
		}
	}
	if json.Unmarshal(body, &asked) != nil || len(asked.Files) > 256 {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	var answers []any
	for _, f := range asked.Files {
		mode := "regular"
		if sample, err := base64.StdEncoding.DecodeString(f.Sample); err != nil || len(sample) != min(f.Size, 512) {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		if f.Size > 10_000 {
			mode = "lfs"
		}
		answer := map[string]any{"path": f.Path, "uploadMode": mode, "shouldIgnore": f.Path == s.ignored, "oid": nil}
		if data, ok := s.files[f.Path]; ok {
			answer["oid"] = digestOf(data)
		}
		answers = append(answers, answer)
	}
	json.NewEncoder(w).Encode(map[string]any{"files": answers})
}

func (s *server) batch(w http.ResponseWriter, r *http.Request, body []byte) {
	var asked struct {
		Operation string
		Transfers []string
		HashAlgo  string `json:"hash_algo"`
		Objects   []struct {
			OID  string
			Size int
		}
	}
	if json.Unmarshal(body, &asked) != nil || asked.Operation != "upload" || asked.HashAlgo != "sha256" || !slices.Contains(asked.Transfers, "multipart") ||
		r.Header.Get("Accept") != lfsType {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	var answers []any
	for _, o := range asked.Objects {
		answer := map[string]any{"oid": o.OID, "size": o.Size}
		answers = append(answers, answer)
		if _, ok := s.objects[o.OID]; ok {
			continue
		}
		t := &ticket{oid: o.OID, left: s.uses}
		name := strconv.Itoa(len(s.tickets))
		s.tickets[name] = t
		link := func(part int) string {
			return fmt.Sprintf("%s/up?%s&ticket=%s&partNumber=%d&uploadId=%s", s.storage.URL, signed, name, part, t.upload)
		}
		upload := map[string]any{"href": link(0)}
		if o.Size > s.chunk {
			for _, id := range slices.Sorted(maps.Keys(s.begun)) {
				if s.begun[id].oid == o.OID && !s.forgets {
					t.upload = id
				}
			}
			if t.upload == "" {
				t.upload = fmt.Sprintf("upload%d", len(s.begun))
				s.begun[t.upload] = &multi{oid: o.OID, size: o.Size, parts: map[int][]byte{}}
			}
			header := map[string]any{"chunk_size": strconv.Itoa(s.chunk)}
			for i := range count(int64(o.Size), int64(s.chunk)) {
				header[fmt.Sprintf("%05d", i+1)] = link(i + 1)
			}
			upload = map[string]any{"href": s.hub.URL + "/complete?uploadId=" + t.upload + "&" + signed, "header": header}
		}
		answer["actions"] = map[string]any{"upload": upload, "verify": map[string]any{"href": s.hub.URL + "/verify"}}
	}
	json.NewEncoder(w).Encode(map[string]any{"transfer": "multipart", "objects": answers})
}

// take takes the content of a file, or of a part.
func (s *server) take(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	s.mu.Lock()
	t := s.tickets[q.Get("ticket")]
	expired := t == nil || s.uses > 0 && t.left <= 0 || r.Header.Get("Authorization") != ""
	if !expired {
		t.left--
	}
	s.mu.Unlock()
	if expired {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	var data []byte
	buffer := make([]byte, 16<<10)
	for {
		n, err := r.Body.Read(buffer)
		data = append(data, buffer[:n]...)
		s.mu.Lock()
		s.received += n
		cut := s.cutAt >= 0 && s.received >= s.cutAt
		if cut {
			s.cutAt = -1
		}
		s.mu.Unlock()
		if cut {
			s.cut()
			panic(http.ErrAbortHandler)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.alters && len(data) > 0 {
		data[0] ^= 1
	}
	if t.upload == "" {
		s.objects[t.oid] = data
		return
	}
	m := s.begun[t.upload]
	part, _ := strconv.Atoi(q.Get("partNumber"))
	if m == nil || len(data) != min(s.chunk, m.size-(part-1)*s.chunk) {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	m.parts[part] = data
	w.Header().Set("ETag", tagOf(data))
}

func tagOf(data []byte) string {
	sum := md5.Sum(data)
	return `"` + hex.EncodeToString(sum[:]) + `"`
}

// complete joins the parts of an upload.
func (s *server) complete(w http.ResponseWriter, r *http.Request, body []byte) {
	id := r.URL.Query().Get("uploadId")
	var told struct {
		OID   string
		Parts []struct {
			PartNumber int
			ETag       string
		}
	}
	m := s.begun[id]
	if json.Unmarshal(body, &told) != nil || m == nil || m.oid != told.OID || len(told.Parts) != count(int64(m.size), int64(s.chunk)) {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	data := make([]byte, 0, m.size)
	for i, p := range told.Parts {
		if p.PartNumber != i+1 || p.ETag != tagOf(m.parts[i+1]) {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		data = append(data, m.parts[i+1]...)
	}
	delete(s.begun, id)
	s.objects[m.oid] = data
}

func (s *server) commit(w http.ResponseWriter, r *http.Request, body []byte) {
	if s.between != nil {
		s.between()
	}
	brought := map[string][]byte{}
	lines := bufio.NewScanner(bytes.NewReader(body))
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var l struct {
			Key   string
			Value struct {
				Summary, ParentCommit              string
				Path, Content, Encoding, Algo, OID string
				Size                               int
			}
		}
		if json.Unmarshal(lines.Bytes(), &l) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		v := l.Value
		switch l.Key {
		case "header":
			if v.ParentCommit != "" && v.ParentCommit != s.head {
				w.WriteHeader(http.StatusPreconditionFailed)
				return
			}
		case "file":
			data, err := base64.StdEncoding.DecodeString(v.Content)
			if err != nil || v.Encoding != "base64" {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			brought[v.Path] = data
		case "lfsFile":
			data, ok := s.objects[v.OID]
			if !ok || v.Algo != "sha256" || v.Size != len(data) {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			brought[v.Path] = data
		}
	}
	if r.Header.Get("Content-Type") != "application/x-ndjson" || len(brought) == 0 {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	maps.Copy(s.files, brought)
	s.commits = append(s.commits, brought)
	s.head = fmt.Sprintf("%040d", len(s.commits))
	json.NewEncoder(w).Encode(map[string]any{"success": true, "commitOid": s.head, "commitUrl": s.hub.URL + "/org/new/commit/" + s.head})
}
