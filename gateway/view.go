package gateway

import "time"

// What follows is the gateway as an operator sees it: over the API, in the
// CLI's --json and in its tables. Sizes are bytes, rates bits per second.

// Status is what `longhaul status` shows.
type Status struct {
	Site    string       `json:"site" doc:"name of this site"`
	Gateway string       `json:"gateway" doc:"name of this gateway"`
	Version string       `json:"version" doc:"version of longhauld"`
	Since   time.Time    `json:"since" doc:"when this gateway started"`
	Listen  string       `json:"listen" doc:"address of the link, in UDP and in TCP"`
	CertEnd time.Time    `json:"certificate_expires" doc:"when this gateway's certificate ends"`
	Peers   []PeerStatus `json:"peers" doc:"the other sites"`
	Hosts   []HostStatus `json:"hosts" doc:"this site's hypervisor hosts"`
	Store   StoreStatus  `json:"store" doc:"content known to this gateway and its peers"`
	Jobs    int          `json:"jobs_running" doc:"jobs that have not ended"`
	Moves   MoveTotals   `json:"moves" doc:"moves that have left this site since the gateway started"`
	Left    []Leftover   `json:"left,omitempty" doc:"what moves that have ended have left undone; it is tried again"`
	Drops   PortDrops    `json:"drops" doc:"what was lost or refused at the listening port"`
}

// Leftover is what a move that has ended has left undone, and which is tried again.
type Leftover struct {
	Job     string    `json:"job" doc:"its job"`
	VM      string    `json:"vm" doc:"its VM"`
	Host    string    `json:"host" doc:"host of this site"`
	Since   time.Time `json:"since" doc:"when it was first tried by this gateway"`
	Problem string    `json:"problem" doc:"what is not done and why, and what to do if it is not for the gateway"`
}

// MoveTotals sums up the moves that have left a site and ended since its gateway
// started.
type MoveTotals struct {
	Done     int64 `json:"done" doc:"moves that succeeded"`
	Aborted  int64 `json:"aborted" doc:"moves that an operator ended"`
	Failed   int64 `json:"failed" doc:"moves that a fault ended"`
	Logical  int64 `json:"logical_bytes" doc:"bytes that the hypervisors wrote for them"`
	Wire     int64 `json:"wire_bytes" doc:"bytes sent on the WAN for them, without packet headers"`
	Total    int64 `json:"total_ms" doc:"time that those took that succeeded, in milliseconds"`
	Downtime int64 `json:"downtime_ms" doc:"time in which the VMs of those stood still, in milliseconds"`
}

// add counts a job that has ended.
func (t *MoveTotals) add(j Job) {
	switch j.State {
	case JobDone:
		t.Done++
	case JobAborted:
		t.Aborted++
	case JobFailed:
		t.Failed++
	}
	t.Logical += j.Progress.LogicalBytes
	t.Wire += j.Progress.WireBytes
	if j.Report != nil {
		t.Total += j.Report.Total
		t.Downtime += max(j.Report.Downtime, 0)
	}
}

// PeerStatus is one peer, seen from here.
type PeerStatus struct {
	Site       string    `json:"site" doc:"name of the peer's site"`
	Address    string    `json:"address" doc:"its address"`
	Alive      bool      `json:"alive" doc:"the link is up"`
	Since      time.Time `json:"since" doc:"when it came up or went down"`
	Why        string    `json:"why,omitempty" doc:"why it is not alive"`
	Member     string    `json:"member" doc:"what the membership says: alive, suspect, dead, left, unknown"`
	Version    string    `json:"version,omitempty" doc:"version of the peer's longhauld"`
	RTT        float64   `json:"rtt_ms" doc:"smoothed round trip in milliseconds"`
	Conns      int       `json:"connections" doc:"connections of the link"`
	Carrier    string    `json:"carrier" doc:"what carries the link: quic or tcp" enum:"quic,tcp"`
	Fallback   string    `json:"fallback,omitempty" doc:"why TCP carries it where QUIC could"`
	Rate       int64     `json:"rate_bps" doc:"cap of the link in bits per second, 0 for none"`
	Goodput    int64     `json:"goodput_bps" doc:"measured goodput of the last seconds in bits per second"`
	Controller string    `json:"controller" doc:"congestion controller in use"`
	Paths      []Path    `json:"paths,omitempty" doc:"the ways to the peer, if there are several"`
	Sent       int64     `json:"sent_bytes" doc:"bytes sent on the wire, headers included"`
	Received   int64     `json:"received_bytes" doc:"bytes received on the wire, headers included"`
	Classes    []Class   `json:"classes" doc:"what has been sent, by class, the first first"`
	Copied     int64     `json:"copied_bytes" doc:"of the bytes sent, those that went a second time before a loss was known: what a VM stands still for, and short urgent messages where packets are lost"`
	Twice      int64     `json:"twice_bytes" doc:"bytes that came although they were here"`
	Drops      LinkDrops `json:"drops" doc:"what was lost at this end and not on the line"`

	// What the peer says of itself.
	FarController string `json:"far_controller,omitempty" doc:"the peer's congestion controller and why it is that, where it is not ours"`
	FarFallback   string `json:"far_fallback,omitempty" doc:"why the peer has TCP carry it where QUIC could"`
}

// Class is what one class has sent over a link.
type Class struct {
	Name   string `json:"name" doc:"urgent and l2 go before all else; tail is the rest of VMs that stand still" enum:"urgent,l2,tail,memory,disk,seed"`
	Weight int    `json:"weight" doc:"its share among those that have something to send; 0 for what goes before all else"`
	Sent   int64  `json:"sent_bytes" doc:"bytes sent on the wire, headers included"`
}

// Path is one way over the WAN to a peer.
type Path struct {
	Name     string  `json:"name" doc:"name in the config"`
	Source   string  `json:"source,omitempty" doc:"our IP address on it, if configured"`
	Address  string  `json:"address,omitempty" doc:"the peer's address on it, while in use"`
	Alive    bool    `json:"alive" doc:"the peer answers on it"`
	Why      string  `json:"why,omitempty" doc:"why it is down"`
	Urgent   bool    `json:"urgent" doc:"what is urgent goes over it, and the frames of segments"`
	Conns    int     `json:"connections" doc:"connections over it"`
	RTT      float64 `json:"rtt_ms" doc:"smoothed round trip in milliseconds"`
	Cost     int     `json:"cost" doc:"the higher, the later it is used"`
	Rate     int64   `json:"rate_bps" doc:"configured rate in bits per second, 0 for none"`
	Carries  int64   `json:"carries_bps" doc:"what it is found to carry, in bits per second"`
	Sent     int64   `json:"sent_bytes" doc:"bytes sent over it, headers included"`
	Received int64   `json:"received_bytes" doc:"bytes received over it, headers included"`
}

// HostStatus is one hypervisor host of this site.
type HostStatus struct {
	Name    string `json:"name" doc:"name in the config"`
	VMs     int    `json:"vms" doc:"VMs seen"`
	Problem string `json:"problem,omitempty" doc:"why it cannot be asked"`
}

// StoreStatus sums up the content stores.
type StoreStatus struct {
	Pages  int64 `json:"pages" doc:"pages held"`
	Bytes  int64 `json:"bytes" doc:"bytes of pages held, in whole segments of 1 MiB"`
	Budget int64 `json:"budget_bytes" doc:"bytes of pages that may be held"`
	Memory int64 `json:"memory_bytes" doc:"of these, bytes in memory"`
	Disk   int64 `json:"disk_bytes" doc:"of these, bytes on disk"`
}

// MigrateRequest asks for one move.
type MigrateRequest struct {
	VM       string `json:"vm" doc:"name of the VM" example:"db1"`
	To       string `json:"to" doc:"site to move it to" example:"b"`
	ToHost   string `json:"to_host,omitempty" doc:"host at that site; empty lets the site choose"`
	Rate     int64  `json:"rate_bps,omitempty" doc:"cap of this move in bits per second; 0 for none" minimum:"0"`
	Downtime int64  `json:"downtime_ms,omitempty" doc:"downtime to aim for in milliseconds; 0 for 300" minimum:"0"`
	Deadline int64  `json:"deadline_s,omitempty" doc:"seconds in which to be done: WAN paths that cost more are used if they are needed for that; 0 for none" minimum:"0"`
	Channels int    `json:"channels,omitempty" doc:"multifd channels; 0 for none" minimum:"0" maximum:"64"`
	Throttle bool   `json:"throttle,omitempty" doc:"slow the guest's CPUs down if it would not converge"`
	Tenant   string `json:"tenant,omitempty" doc:"tenant whose VM it is, if its host has none: only what crossed for him is referred to; empty for the default tenant" example:"acme"`
}

// JobState is where a job stands. Ended states are done, aborted and failed.
type JobState string

// The states of a move, in the order in which it passes them.
const (
	JobPreparing JobState = "preparing" // the destination is being started
	JobMoving    JobState = "moving"    // memory crosses, the VM runs at its source
	JobSwitching JobState = "switching" // the VM is stopped; the last bytes cross
	JobCommit    JobState = "commit"    // the destination has been told to run; its answer is awaited
	JobDone      JobState = "done"      // the VM runs at the destination, the source is released
	JobAborted   JobState = "aborted"   // ended by the operator; the VM runs at its source
	JobFailed    JobState = "failed"    // ended by a fault; the VM runs at its source
	JobInDoubt   JobState = "in-doubt"  // both copies are paused; see Safe
)

// Ended tells whether a job in state s is over.
func (s JobState) Ended() bool { return s == JobDone || s == JobAborted || s == JobFailed }

// Job is one move as an operator sees it, at either gateway.
type Job struct {
	ID       string         `json:"id" doc:"identifier of the job"`
	VM       string         `json:"vm" doc:"name of the VM"`
	From     string         `json:"from" doc:"site it leaves"`
	To       string         `json:"to" doc:"site it goes to"`
	Role     string         `json:"role" doc:"source or destination: this gateway's part" enum:"source,destination"`
	State    JobState       `json:"state" doc:"where the job stands"`
	Phase    string         `json:"phase" doc:"what is being done now, in words"`
	Started  time.Time      `json:"started" doc:"when it was asked for"`
	Ended    *time.Time     `json:"ended,omitempty" doc:"when it ended"`
	Error    string         `json:"error,omitempty" doc:"why it failed, in one line"`
	Safe     string         `json:"safe_action,omitempty" doc:"which action is safe now, and why"`
	Progress JobProgress    `json:"progress" doc:"how far it is"`
	Report   *JobReport     `json:"report,omitempty" doc:"what it took, when done"`
	Request  MigrateRequest `json:"request" doc:"what was asked for"`
}

// JobProgress is how far a move is.
type JobProgress struct {
	Rounds       int     `json:"rounds" doc:"passes over memory"`
	TotalBytes   int64   `json:"total_bytes" doc:"guest memory in bytes"`
	Remaining    int64   `json:"remaining_bytes" doc:"guest memory that still has to cross, by the hypervisor's count"`
	DirtyRate    int64   `json:"dirty_rate_bps" doc:"rate at which the guest dirties memory, in bits per second"`
	LogicalBytes int64   `json:"logical_bytes" doc:"bytes that the source wrote"`
	WireBytes    int64   `json:"wire_bytes" doc:"bytes of this move sent on the WAN, without packet headers"`
	Rate         int64   `json:"rate_bps" doc:"rate on the WAN now, in bits per second"`
	RateCap      int64   `json:"rate_cap_bps" doc:"cap of this move in bits per second, 0 for none"`
	Backlog      int64   `json:"backlog_bytes" doc:"encoded bytes that the destination has not taken yet"`
	BacklogMax   int64   `json:"backlog_limit_bytes" doc:"bound of the backlog"`
	Reduction    float64 `json:"reduction" doc:"logical bytes for each byte on the wire"`
	ETALow       float64 `json:"eta_low_s" doc:"seconds until the switchover, if all goes well; -1 when it cannot be told"`
	ETAHigh      float64 `json:"eta_high_s" doc:"seconds until the switchover, if the guest keeps dirtying memory; -1 when it would not converge"`
	Downtime     int64   `json:"forecast_downtime_ms" doc:"forecast of the downtime in milliseconds; -1 when it cannot be told"`
	Throttle     int     `json:"throttle_percent" doc:"per cent by which the guest's CPUs are slowed down"`
	Codec        string  `json:"codec,omitempty" doc:"how what crosses now is compressed, and how many pages a page may be put together from" example:"zstd-3, 4 bases"`
	LimitedBy    string  `json:"limited_by,omitempty" doc:"what holds the move up: the line, this site's CPUs, the destination that loads it, or the source that does not send more" enum:"line,cpu,destination,source"`
	Sealed       string  `json:"sealed,omitempty" doc:"how the hypervisor compresses pages in a way that this gateway does not expand: they pass as they are, and nothing of them is known at the next move" enum:"compress,qpl,uadk,qatzip"`
	Stalled      string  `json:"stalled,omitempty" doc:"why nothing crosses now, such as the WAN being away"`

	Codecs []CodecReport `json:"codecs,omitempty" doc:"how what has crossed was compressed, once the move has failed or was aborted; of one that is done the report tells it"`
}

// JobReport is what a finished move took.
type JobReport struct {
	Total        int64     `json:"total_ms" doc:"from the request to the release of the source, in milliseconds"`
	Downtime     int64     `json:"downtime_ms" doc:"from STOP at the source to RESUME at the destination, in milliseconds: by the source's clock up to the order to run, half a round trip, and by the destination's clock from there; 0 for a VM that was paused before, -1 when a restart of the gateway has lost the moment"`
	StoppedAt    time.Time `json:"stopped_at" doc:"when the VM stopped, by the clock of the source's gateway; year 1 when that is not known"`
	ResumedAt    time.Time `json:"resumed_at" doc:"when it ran again, by the clock of the destination's gateway"`
	Rounds       int       `json:"rounds" doc:"passes over memory"`
	LogicalBytes int64     `json:"logical_bytes" doc:"bytes that the source wrote"`
	WireBytes    int64     `json:"wire_bytes" doc:"bytes of this move sent on the WAN, without packet headers"`
	Reduction    float64   `json:"reduction" doc:"logical bytes for each byte on the wire"`
	Pages        int64     `json:"pages" doc:"pages sent, each time counted"`
	ZeroPages    int64     `json:"zero_pages" doc:"of these, all zero"`
	Refs         int64     `json:"references" doc:"of these, known to the peer"`
	Deltas       int64     `json:"deltas" doc:"of these, sent as a change of a known version"`
	Digest       string    `json:"digest" doc:"digest of the streams on which both ends agree"`
	Network      *Silence  `json:"network,omitempty" doc:"what the stretched segments saw of the switchover; absent if the VM is on none"`

	Codecs []CodecReport `json:"codecs,omitempty" doc:"how it was compressed: a part for each setting that was used, the weakest first"`
}

// CodecReport is what was compressed in one way.
type CodecReport struct {
	Codec        string `json:"codec" doc:"how, as in progress" example:"zstd-3, 4 bases"`
	Batches      int64  `json:"batches" doc:"batches that were compressed so"`
	LogicalBytes int64  `json:"logical_bytes" doc:"bytes that the source wrote"`
	WireBytes    int64  `json:"wire_bytes" doc:"bytes of this move sent on the WAN, without packet headers"`
	CPU          int64  `json:"cpu_ms" doc:"CPU time that it took to encode and compress them, in milliseconds"`
}

// Silence is a move's switchover as the VM's peers see it.
type Silence struct {
	Gap  int64 `json:"gap_ms" doc:"from the VM's last frame at the source to its first at the destination, in milliseconds and to within 10; -1 when either was not seen"`
	Held int   `json:"held" doc:"frames that waited at the destination and reached the VM"`
	Lost int   `json:"lost" doc:"frames that could not wait"`
}

// JobEvent is one change of a job, for `job watch`.
type JobEvent struct {
	At  time.Time `json:"at" doc:"when"`
	Job Job       `json:"job" doc:"the job after the change"`
}

// Forward is a local port that comes out at the other site.
type Forward struct {
	Name   string `json:"name" doc:"name of the forward" example:"libvirt-mig"`
	Listen string `json:"listen" doc:"local address, tcp:HOST:PORT or unix:/path" example:"tcp:127.0.0.1:49300"`
	To     string `json:"to" doc:"site at which it comes out" example:"b"`
	Target string `json:"target" doc:"address there, tcp:HOST:PORT or unix:/path" example:"tcp:127.0.0.1:49300"`
	Kind   string `json:"kind,omitempty" doc:"what comes through: auto, migration or tcp" enum:"auto,migration,tcp"`
	Tenant string `json:"tenant,omitempty" doc:"tenant whose VMs come through; empty for the default tenant" example:"acme"`

	Conns   int    `json:"connections" readOnly:"true" doc:"connections open now"`
	Total   int64  `json:"total" readOnly:"true" doc:"connections so far"`
	Logical int64  `json:"logical_bytes" readOnly:"true" doc:"bytes that came in here"`
	Wire    int64  `json:"wire_bytes" readOnly:"true" doc:"bytes sent on the WAN for them"`
	Codec   string `json:"codec,omitempty" readOnly:"true" doc:"how what crosses now is compressed, and how many pages a page may be put together from; several, if its connections differ" example:"zstd-3, 4 bases"`
	Problem string `json:"problem,omitempty" readOnly:"true" doc:"why it does not work"`
}

// Segment is a stretched Layer 2 network at this site.
type Segment struct {
	Name   string   `json:"name" doc:"name of the segment, the same at all sites" example:"prod"`
	VNI    uint32   `json:"vni" doc:"VXLAN network identifier, the same at all sites" minimum:"1" maximum:"16777215" example:"100"`
	Bridge string   `json:"bridge" doc:"bridge at this site; made if it does not exist" example:"br-prod"`
	VLAN   uint16   `json:"vlan,omitempty" doc:"VLAN of the bridge that the segment is at this site: its frames have that tag in the LAN, and none between the sites. Absent: it is what has no tag" minimum:"1" maximum:"4094" example:"100"`
	MTU    int      `json:"mtu,omitempty" doc:"MTU of the segment, 1500 by default" minimum:"576" maximum:"9000"`
	Sites  []string `json:"sites" doc:"the other sites on the segment"`
	// Everywhere: these are all that the gateway knows, of which more may be met; see SetSites.
	Everywhere bool   `json:"-"`
	Mode       string `json:"mode,omitempty" doc:"how frames go to other sites, the same at all of them: secure, inside the link (the default), secure-fast, encrypted beside the link and several times as fast, or direct, by the kernel over a private network between the sites" enum:"secure,secure-fast,direct"`

	Policy SegmentPolicy `json:"policy,omitzero" doc:"what crosses, and where the guests' gateway is"`

	Adopted  bool      `json:"adopted" readOnly:"true" doc:"the bridge was there before us"`
	Device   string    `json:"device" readOnly:"true" doc:"VXLAN device"`
	Bindings []Binding `json:"bindings" readOnly:"true" doc:"which site owns which MAC"`
	Sent     int64     `json:"frames_sent" readOnly:"true" doc:"frames sent to other sites"`
	Received int64     `json:"frames_received" readOnly:"true" doc:"frames received from other sites"`
	Dropped  int64     `json:"frames_dropped" readOnly:"true" doc:"frames dropped, for any reason"`
	Problem  string    `json:"problem,omitempty" readOnly:"true" doc:"why it does not work"`

	Ways []SegmentWay `json:"ways,omitempty" readOnly:"true" doc:"in mode direct, the way to each other site; in other modes only sites that carry it in another way"`

	Streams []SegmentStream `json:"streams,omitempty" readOnly:"true" doc:"how TCP connections of its hosts cross to each site"`

	Counts map[string]int64 `json:"counts,omitempty" readOnly:"true" doc:"what became of its frames, by name; those that begin with drop_ were dropped"`
}

// SegmentWay is the way of a segment's frames to one other site.
type SegmentWay struct {
	Site    string  `json:"site" doc:"the other site"`
	Mode    string  `json:"mode,omitempty" doc:"how it carries the segment; absent if it has not said"`
	Address string  `json:"address,omitempty" doc:"its address on the underlay"`
	Up      bool    `json:"up" doc:"full frames come back"`
	RTT     float64 `json:"rtt_ms,omitempty" doc:"round trip of a full frame over the underlay, in milliseconds"`
	Problem string  `json:"problem,omitempty" doc:"what is the matter"`
}

// SegmentStream says how TCP connections cross to a site.
type SegmentStream struct {
	Site string  `json:"site" doc:"the other site"`
	On   bool    `json:"on" doc:"by reliable streams, so that hosts do not see what the line loses; else as datagrams"`
	Why  string  `json:"why" doc:"why so"`
	Loss float64 `json:"loss" doc:"share of what was sent to the site that was lost of late, 0 to 1"`
}

// Binding says which site owns a MAC.
type Binding struct {
	MAC   string   `json:"mac" doc:"MAC address"`
	IPs   []string `json:"ips,omitempty" doc:"IP addresses seen with it"`
	Site  string   `json:"site" doc:"site that owns it"`
	Seq   uint64   `json:"seq" doc:"sequence number; the higher wins"`
	State string   `json:"state" doc:"confirmed, pending, flipped, or frozen: claimed by two sites in turn"`
	Job   string   `json:"job,omitempty" doc:"job that moved it"`

	FrozenAt []string `json:"frozen_at,omitempty" doc:"sites at which it is frozen"`

	Egress   string   `json:"egress,omitempty" doc:"site at which its traffic leaves the segment"`
	Ingress  string   `json:"ingress,omitempty" doc:"site at which its traffic enters the segment"`
	AddedRTT *float64 `json:"added_rtt_ms,omitempty" doc:"what that adds to a round trip, in milliseconds"`
}
