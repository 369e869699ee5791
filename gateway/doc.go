// Package gateway is one site's end of the path: it takes a hypervisor's
// migration stream, brings it to the other site, and decides with its peer who
// owns the VM. This file is the map of Longhaul.
//
// # The path of a page
//
// The source hypervisor migrates into its local gateway as if that were the
// destination; the far gateway replays the same bytes into the real one.
//
//	 source QEMU                                                  destination QEMU
//	      |  leg                                                      ^  leg
//	      v                                                           |
//	1 accept     legs.go serveLeg        what is this connection?     |
//	2 parse      outbound.go parse       stream -> page.Item          |
//	             internal/qemu/vmstream  (unpacked: page.Unpacker)    |
//	3 encode     outbound.go add         zero? known? changed? new    |
//	             dedup.Encoder                                        |
//	4 compress   outbound.go compress    batches, on all cores        |
//	             dedup.Batch.Compress                                 |
//	5 shape      tunnel.Flow, tunnel/shaper   this move, then the link|
//	6 send       outbound.go send        striped, kept until consumed |
//	             tunnel.Channel.Send                                  |
//	 ============================ WAN, QUIC ========================= |
//	7 expand     inbound.go expand, resolve,  decompress on all cores,|
//	             rebuild: dedup.Expand,       resolve in order,       |
//	             Decoder.Resolve, Rebuild     verify on all cores     |
//	8 replay     inbound.go deliver      the exact bytes  ------------+
//	                                     (packed again: Formats.Pack)
//
// The answers of the destination (the return path) travel the other way as raw
// bytes in the urgent class: inbound.go answer, outbound.go returnPath.
//
// # What is promised
//
// Byte-exact: items only choose how a span is encoded; their bytes always add
// up to the stream. Where QEMU compresses a channel by itself, the stream is what
// it is without that: the pages, and which; the destination reads these pages in
// a form that is not compressed (vmstream.Packer). Proved: every batch carries
// the chained digest of the stream up to its end, checked before one of its bytes
// is delivered; a seal withholds the end of a stream until all channels agree
// (session.go await); and the order to run is not sent before both ends agree on
// all digests (session.go same). Bounded: backlog.go, of messages sent.go. One
// owner: commit.go. Outage-proof: legs block while the WAN is away, and tunnel
// sessions go on where they were. As fast as the slower of CPU and line: codec.go.
// Fair: turnstile.go.
//
// # The rest of the story
//
//	gateway.go      takes the channels that peers open; links.go hears of links;
//	                goback.go, what becomes of moves when it is stopped
//
//	migrate.go      an operator asks for a move; find.go, of a VM at which host
//	move_source.go  the move at the site the VM leaves
//	move_back.go    the way back, when it is given up
//	move_sink.go    the move at the site it comes to
//	control.go      what the two tell each other; wire.go has the messages
//	commit.go       who owns the VM; journal.go is what each has written down
//	query.go        a destination without orders asks for them; late orders
//	sink_process.go the process that waits at the destination
//	recover.go      what a restart finds in the journal; stranger.go, who else has
//	                the VM's name; left.go, what a move has left behind
//	deadline.go     a move in a hurry uses the paths that cost more, while it needs them
//
//	late.go         a connection that was silent when it was opened
//	crew.go         the goroutines of one leg, and when it is cut off: netclose.go
//	forward.go      fixed local addresses that come out at the other site
//
//	stores.go       what a peer and we both hold, over restarts of either
//	tenants.go      for whom: tenants share no content
//	storedirs.go    where all that lies on disk; leftstores.go, what is nobody's there
//	fetch.go        pages of it that one end has lost, from the other
//	images.go       what this site has of its own: templates, ISO files, disks
//	seed.go         reads them (seedread.go, not faster than readpace.go says); keep.go
//	                keeps the directories of the config
//	seen.go         what was read of them, which is not read again, in a memo.go;
//	                seedagain.go, what goes on after a restart
//	cross.go        brings what a peer lacks of them there, in the background
//	summary.go      what a peer has of its own, so that hashes of it are enough
//	store_tasks.go  seeding and verifying as operators watch them; store_report.go
//
//	pace.go         every 100 ms: the bounds of the backlog, how hard to compress
//	codec.go        what to do to save bytes; content.go foretells what it costs
//	limit.go        what holds a move up; effort.go, cores.go measure it by the
//	                clocks of cputime_linux.go, cputime_other.go; others.go, what
//	                else the machine does for the stream
//	turnstile.go    moves share the cores: whose batch is compressed next
//
//	layer2.go       the segments: what moves ask of them; configure.go, the config; segment.go, operators; hostroute.go, routeorder.go,
//	                routes to guests
//	frames.go       their frames on the link; express.go, beside it
//
//	hypervisor.go   what is needed of a hypervisor; adaptors live in internal/
//	linktest.go     what a link carries: linktest_run.go asks, linktest_serve.go
//	                answers, curve.go is what came by when
//	doctor.go       what is wrong with this gateway, its links, its segments;
//	                doctorstore.go, the disk of its stores
//	job.go          a move as operators watch it: move_report.go fills it in from
//	                forecast.go, meter.go; histogram.go sums up those that have ended
//	view.go         what the API shows; status.go fills it in. Parts of it are in
//	                drops.go, linktest_view.go and store_view.go
//	errors.go       what callers decide by
//
// # Words
//
//	site      a datacenter; has a name, gateways, hypervisor hosts
//	gateway   the longhauld process; gateways of different sites are peers
//	guest, VM the machine that moves
//	move      one migration of one VM
//	job       what an operator asked for
//	leg       a local connection between a gateway and a hypervisor
//	session   one move as the two gateways see it: its channels, its state
//	channel   one hypervisor connection inside a session: main, multifd, …
//	page      4 KiB of guest memory
//	item      a page or opaque bytes, in stream order
//	record    how an item is written to the wire
//	batch     records that are compressed and sent as one unit
//	store     content that both sites keep so that it need not cross again
//	tenant    whose VMs share stored content with nobody else's
//	link      the QUIC connections between two gateways
//	segment   a stretched Layer 2 network; a binding says who owns a MAC
package gateway
