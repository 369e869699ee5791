package announce

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"time"
)

// Limits of the format.
const (
	MaxSite    = 63   // bytes of a site's name: a DNS label
	MaxJob     = 64   // bytes of a job's token: 32 hex digits, and room
	MaxIPs     = 8    // addresses of one record: dual stack with privacy addresses
	MaxRecords = 512  // of one message, so that a flip need not wait for long behind a snapshot
	MaxMACs    = 512  // of one Prepare, Clear or Frozen
	MaxMode    = 15   // bytes of a mode
	MaxGroups  = 4096 // of one Members
	MaxTerms   = 16   // of one Terms
	maxTerm    = 255  // bytes of a term's name or value
	MaxMessage = 192 << 10
	maxVNI     = 1<<24 - 1
	version    = 2
	headerLen  = 8

	flagRouter = 1
	flagUDP    = 1 // of an Express

	// Of a Members.
	flagIGMP = 1
	flagMLD  = 2
	flagMore = 4
)

// MAC is an Ethernet address.
type MAC = [6]byte

// Kind says what a message is.
type Kind uint8

// The kinds of message.
const (
	Update Kind = iota + 1
	Digest
	Request
	Prepare
	Clear
	Arrived
)

// More kinds.
const (
	Key     Kind = 8
	Loop    Kind = 9
	Way     Kind = 10
	Express Kind = 11
	Able    Kind = 12
	Members Kind = 13
	Over    Kind = 14
	Terms   Kind = 15
	Trip    Kind = 16
	Cable   Kind = 17
	Frozen  Kind = 18
)

// Abilities.
const (
	AbleStreams = 1 // the sender takes frames by streams (l2ext/stream)
	AbleTrips   = 2 // it takes a Trip
	AbleCables  = 4 // it takes a Cable
	AbleFrozen  = 8 // it takes a Frozen
)

// KeyLen is the length of a key, in bytes.
const KeyLen = 32

// Cause says how the sender of a record has come to it.
type Cause uint8

// The causes.
const (
	Learned Cause = iota + 1
	Moved
	Withdrawn
)

// Record says which site owns a MAC. Of two the one with the higher Seq holds.
type Record struct {
	MAC    MAC
	Cause  Cause
	Router bool // an IPv6 router
	Seq    uint64
	Site   string
	Job    string       // that moved it last, or ""
	IPs    []netip.Addr // seen with the MAC
}

// Message is one message. Which fields count depends on its Kind.
type Message struct {
	Kind    Kind
	VNI     uint32
	Records []Record // Update
	Count   uint32   // Digest: bindings
	Sum     uint64   // Digest
	Job     string   // Prepare, Arrived, Over
	Site    string   // Prepare: where the MACs go; Loop, Cable: whose LAN it is; Trip: where it leads
	MACs    []MAC    // Prepare, Clear, Frozen

	After time.Duration // Arrived: from the flip to the first frame; not negative
	Held  uint32        // Arrived: frames that waited and reached the VM
	Lost  uint32        // Arrived: frames that could not wait

	Key    [KeyLen]byte // Key
	Bridge MAC          // Key: the sender's bridge
	Time   int64        // Key: the sender's clock, nanoseconds since 1970

	Mode      string     // Way: see l2ext.Mode
	Addr      netip.Addr // Way: of the sender's machine for mode direct; invalid for none
	Abilities uint32     // Able: a set; who does not know a bit takes no notice of it

	Root  uint64 // Express: names the secret of which the key is derived
	Epoch uint64 // Express
	Index uint32 // Express: what datagrams of the epoch must name
	UDP   bool   // Express: the sender's kernel takes UDP that is not cut to packets yet

	Groups    []MAC // Members: of multicast
	IGMP, MLD bool  // Members: a router asks there
	More      bool  // Members: there are more groups

	Terms []Term // Terms: in the order of their names

	RTT time.Duration // Trip: in whole microseconds, below 2^32 of them

	Nonce uint64 // Cable: of the probe that has come
}

// Term is something that all sites of a segment ought to agree on.
type Term struct {
	Name  string // as in the config
	Value string
}

// ErrShort says that a message ends too early.
var ErrShort = errors.New("announce: message too short")

// ErrFormat says that a message is not of this format.
var ErrFormat = errors.New("announce: bad message")

// Hash is the record's part of a digest.
func (r Record) Hash() uint64 {
	sum := sha256.Sum256(r.append(nil))
	return binary.BigEndian.Uint64(sum[:])
}

// Append appends the message to b. It fails if the message breaks a limit.
func (m Message) Append(b []byte) ([]byte, error) {
	if m.VNI < 1 || m.VNI > maxVNI {
		return nil, fmt.Errorf("VNI %d: %w", m.VNI, ErrFormat)
	}
	b = append(b, 'L', '2', version, byte(m.Kind))
	b = binary.BigEndian.AppendUint32(b, m.VNI)
	switch m.Kind {
	case Update:
		return appendRecords(b, m.Records)
	case Digest:
		b = binary.BigEndian.AppendUint32(b, m.Count)
		return binary.BigEndian.AppendUint64(b, m.Sum), nil
	case Request:
		return b, nil
	case Prepare:
		return m.appendPrepare(b)
	case Clear, Frozen:
		return appendMACs(b, m.MACs)
	case Arrived:
		return m.appendArrived(b)
	case Key:
		b = binary.BigEndian.AppendUint64(append(b, m.Key[:]...), uint64(m.Time))
		return append(b, m.Bridge[:]...), nil
	case Loop:
		return appendText(b, m.Site), checkNames(m.Site, "")
	case Cable:
		return binary.BigEndian.AppendUint64(appendText(b, m.Site), m.Nonce), checkNames(m.Site, "")
	case Way:
		return m.appendWay(b)
	case Trip:
		return m.appendTrip(b)
	case Members:
		return m.appendMembers(b)
	case Terms:
		return m.appendTerms(b)
	case Over:
		return appendText(b, m.Job), checkJob(m.Job)
	case Able:
		return binary.BigEndian.AppendUint32(b, m.Abilities), nil
	case Express:
		b = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, m.Root), m.Epoch)
		b = binary.BigEndian.AppendUint32(b, m.Index)
		if m.UDP {
			return append(b, flagUDP), nil
		}
		return append(b, 0), nil
	}
	return nil, fmt.Errorf("kind %d: %w", m.Kind, ErrFormat)
}

func appendRecords(b []byte, rs []Record) ([]byte, error) {
	if len(rs) > MaxRecords {
		return nil, fmt.Errorf("%d records: %w", len(rs), ErrFormat)
	}
	b = binary.BigEndian.AppendUint16(b, uint16(len(rs)))
	for _, r := range rs {
		if err := r.check(); err != nil {
			return nil, err
		}
		b = r.append(b)
	}
	return b, nil
}

func (m Message) appendPrepare(b []byte) ([]byte, error) {
	if err := checkNames(m.Site, m.Job); err != nil {
		return nil, err
	}
	return appendMACs(appendText(appendText(b, m.Job), m.Site), m.MACs)
}

func (m Message) appendArrived(b []byte) ([]byte, error) {
	if len(m.Job) > MaxJob || m.After < 0 {
		return nil, fmt.Errorf("job of %d bytes arrived after %v: %w", len(m.Job), m.After, ErrFormat)
	}
	b = binary.BigEndian.AppendUint64(appendText(b, m.Job), uint64(m.After))
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, m.Held), m.Lost), nil
}

func (m Message) appendWay(b []byte) ([]byte, error) {
	if err := checkMode(m.Mode); err != nil {
		return nil, err
	}
	b = appendText(b, m.Mode)
	if !m.Addr.IsValid() {
		return append(b, 0), nil
	}
	return appendIP(b, m.Addr), checkIP(m.Addr)
}

func (m Message) appendTrip(b []byte) ([]byte, error) {
	micros := m.RTT.Microseconds()
	if micros < 0 || micros > math.MaxUint32 {
		return nil, fmt.Errorf("a round trip of %v: %w", m.RTT, ErrFormat)
	}
	return binary.BigEndian.AppendUint32(appendText(b, m.Site), uint32(micros)), checkNames(m.Site, "")
}

func (m Message) appendMembers(b []byte) ([]byte, error) {
	if len(m.Groups) > MaxGroups {
		return nil, fmt.Errorf("%d groups: %w", len(m.Groups), ErrFormat)
	}
	flags := bit(m.IGMP, flagIGMP) | bit(m.MLD, flagMLD) | bit(m.More, flagMore)
	b = binary.BigEndian.AppendUint16(append(b, flags), uint16(len(m.Groups)))
	for _, g := range m.Groups {
		if err := checkGroup(g); err != nil {
			return nil, err
		}
		b = append(b, g[:]...)
	}
	return b, nil
}

func (m Message) appendTerms(b []byte) ([]byte, error) {
	if err := checkTerms(m.Terms); err != nil {
		return nil, err
	}
	b = append(b, byte(len(m.Terms)))
	for _, t := range m.Terms {
		b = appendText(appendText(b, t.Name), t.Value)
	}
	return b, nil
}

func bit(is bool, flag byte) byte {
	if is {
		return flag
	}
	return 0
}

func appendMACs(b []byte, macs []MAC) ([]byte, error) {
	if len(macs) > MaxMACs {
		return nil, fmt.Errorf("%d MACs: %w", len(macs), ErrFormat)
	}
	b = binary.BigEndian.AppendUint16(b, uint16(len(macs)))
	for _, mac := range macs {
		if err := checkMAC(mac); err != nil {
			return nil, err
		}
		b = append(b, mac[:]...)
	}
	return b, nil
}

// append appends a record that has been checked.
func (r Record) append(b []byte) []byte {
	var flags byte
	if r.Router {
		flags = flagRouter
	}
	b = append(append(b, r.MAC[:]...), byte(r.Cause), flags)
	b = binary.BigEndian.AppendUint64(b, r.Seq)
	b = appendText(appendText(b, r.Site), r.Job)
	b = append(b, byte(len(r.IPs)))
	for _, ip := range r.IPs {
		b = appendIP(b, ip)
	}
	return b
}

func appendIP(b []byte, ip netip.Addr) []byte {
	if ip.Is4() {
		b = append(b, 4)
	} else {
		b = append(b, 6)
	}
	return append(b, ip.AsSlice()...)
}

func (r Record) check() error {
	if r.Cause < Learned || r.Cause > Withdrawn {
		return fmt.Errorf("cause %d: %w", r.Cause, ErrFormat)
	}
	if len(r.IPs) > MaxIPs {
		return fmt.Errorf("%d addresses: %w", len(r.IPs), ErrFormat)
	}
	for _, ip := range r.IPs {
		if err := checkIP(ip); err != nil {
			return err
		}
	}
	return errors.Join(checkMAC(r.MAC), checkNames(r.Site, r.Job))
}

func checkIP(ip netip.Addr) error {
	if !ip.IsValid() || ip.Is4In6() || ip.Zone() != "" || ip.IsUnspecified() || ip.IsMulticast() {
		return fmt.Errorf("address %v: %w", ip, ErrFormat)
	}
	return nil
}

func checkMode(mode string) error {
	if len(mode) < 1 || len(mode) > MaxMode || strings.Trim(mode, "abcdefghijklmnopqrstuvwxyz-") != "" {
		return fmt.Errorf("mode %q: %w", mode, ErrFormat)
	}
	return nil
}

func checkMAC(m MAC) error {
	if m == (MAC{}) || m[0]&1 != 0 {
		return fmt.Errorf("MAC %x is no host's: %w", m, ErrFormat)
	}
	return nil
}

// checkGroup refuses what is no IP multicast (RFC 1112, section 6.4; RFC 2464, section 7)
// and what all hosts of a link have to hear (ether.MAC.LinkLocalGroup): who could name
// these would say where other sites' broadcast and neighbour discovery go.
func checkGroup(m MAC) error {
	v4 := m[0] == 1 && m[1] == 0 && m[2] == 0x5e && m[3] < 0x80
	v6 := m[0] == 0x33 && m[1] == 0x33
	switch {
	case v4 && (m[3] != 0 || m[4] != 0):
	case v6 && m[2] != 0xff && (m[2] != 0 || m[3] > 1 || m[4] != 0):
	default:
		return fmt.Errorf("MAC %x is of no multicast group that hosts join: %w", m, ErrFormat)
	}
	return nil
}

func checkNames(site, job string) error {
	if len(site) < 1 || len(site) > MaxSite || len(job) > MaxJob {
		return fmt.Errorf("site of %d bytes, job of %d: %w", len(site), len(job), ErrFormat)
	}
	return nil
}

func checkTerms(ts []Term) error {
	if len(ts) > MaxTerms {
		return fmt.Errorf("%d terms: %w", len(ts), ErrFormat)
	}
	odd := func(r rune) bool { return r < ' ' || r > '~' } // operators read it
	for i, t := range ts {
		if len(t.Name) > maxTerm || len(t.Value) > maxTerm || strings.ContainsFunc(t.Name+t.Value, odd) || t.Name == "" || i > 0 && t.Name <= ts[i-1].Name {
			return fmt.Errorf("term %q is %q: %w", t.Name, t.Value, ErrFormat)
		}
	}
	return nil
}

func checkJob(job string) error {
	if len(job) > MaxJob {
		return fmt.Errorf("job of %d bytes: %w", len(job), ErrFormat)
	}
	return nil
}

func appendText(b []byte, s string) []byte { return append(append(b, byte(len(s))), s...) }
