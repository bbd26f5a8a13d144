// RFC 9293 segment by segment: what comes back for what is sent. Numbers count from the first byte behind each side's SYN.
import { describe, expect, test } from "vitest";
import { Peer } from "./peer.js";

const ack = (acknowledgment: number, sequence = 0) => expect.objectContaining({ flags: "A", acknowledgment, sequence, data: "" });

describe("opening", () => {
  test("the guest is answered when the server has, and what it sends with its acknowledgment counts", () => {
    const peer = new Peer();
    peer.syn({ mss: 1460, windowShift: 7 });
    expect(peer.take()).toEqual([]);
    peer.syn({ mss: 1460, windowShift: 7 });
    expect(peer.take()).toEqual([]);
    peer.endpoint.answer();
    expect(peer.take()).toEqual([{ flags: "SA", sequence: -1, acknowledgment: 0, window: 65_535, data: "" }]);
    peer.send("AP", { data: "hello" });
    expect(peer.received.toString()).toBe("hello");
    expect(peer.events).toEqual(["opened"]);
    expect(peer.take()).toEqual([{ flags: "A", sequence: 0, acknowledgment: 5, window: 32_768, data: "" }]); // a window of 1 MiB in steps of 32
  });

  test("a refused server is a reset", () => {
    const peer = new Peer();
    peer.syn();
    peer.endpoint.reset();
    expect(peer.take()).toEqual([{ flags: "AR", sequence: -5001, acknowledgment: 0, window: 0, data: "" }]);
    expect(peer.events).toEqual(["closed"]);
  });

  test("the guest gives up before the server has answered", () => {
    const peer = new Peer();
    peer.syn();
    peer.send("R", { sequence: 0 });
    expect(peer.events).toEqual(["reset", "closed"]);
  });

  test("an answer that is lost is sent again, some times", () => {
    const peer = new Peer();
    peer.syn();
    peer.endpoint.answer();
    peer.take();
    peer.pass(1000);
    expect(peer.take()).toMatchObject([{ flags: "SA" }]);
    peer.syn();
    expect(peer.take()).toMatchObject([{ flags: "SA" }]);
    peer.pass(1_000_000);
    expect(peer.take().map(({ flags }) => flags)).toEqual(["SA", "SA", "SA", "SA", "SA", "AR"]);
    expect(peer.events).toEqual(["reset", "closed"]);
  });

  test("a connection to the guest", () => {
    const peer = new Peer();
    peer.endpoint.connect();
    expect(peer.take()).toMatchObject([{ flags: "S", sequence: -1 }]);
    peer.endpoint.send(Buffer.from("first"));
    expect(peer.take()).toEqual([]);
    peer.send("SA", { sequence: -1, acknowledgment: 7 }); // of what was not sent
    expect(peer.events).toEqual([]);
    peer.send("SA", { sequence: -1, acknowledgment: 0 });
    expect(peer.events).toEqual(["opened"]);
    expect(peer.take()).toMatchObject([{ flags: "A", acknowledgment: 0 }, { flags: "AP", data: "first" }]);
  });

  test("a connection to the guest that it refuses", () => {
    const peer = new Peer();
    peer.endpoint.connect();
    peer.send("RA", { sequence: 0, acknowledgment: 0 });
    expect(peer.events).toEqual(["reset", "closed"]);
  });
});

describe("receiving", () => {
  test("what overlaps is taken once, what leaves a gap is asked for", () => {
    const peer = new Peer();
    peer.open();
    peer.send("A", { data: "abcdef" });
    peer.send("A", { sequence: 3, data: "defghi" });
    peer.send("A", { sequence: 0, data: "abc" });
    expect(peer.received.toString()).toBe("abcdefghi");
    peer.take();
    peer.send("A", { sequence: 12, data: "mno" });
    peer.send("A", { sequence: 15, data: "pqr" });
    expect(peer.take()).toEqual([ack(9), ack(9)]);
    peer.send("A", { sequence: 9, data: "jklmnopqr" });
    expect(peer.received.toString()).toBe("abcdefghijklmnopqr");
    expect(peer.take()).toEqual([ack(18)]);
  });

  test.each([[-3, 2_147_483_640], [2_147_483_640, -3], [-1, -1]])("sequence numbers go over their end: %i, %i", (own, theirs) => {
    const peer = new Peer({ own, theirs });
    peer.open();
    let all = "";
    for (let at = 0; at < 200; at += 10) {
      const data = String(at).padStart(10, "_");
      peer.endpoint.send(Buffer.from(data));
      peer.send("A", { sequence: at, acknowledgment: at, data });
      expect(peer.take()).toMatchObject([{ sequence: at, acknowledgment: at + 10, data }]);
      all += data;
    }
    expect(peer.received.toString()).toBe(all);
  });

  test("the window closes as nobody takes what came, never moves back, and opens in steps that are worth it", () => {
    const peer = new Peer();
    peer.share = 10_000;
    peer.consumes = false;
    peer.open({ mss: 1000, windowShift: null });
    const block = "x".repeat(1000);
    const windows: number[] = [];
    for (let at = 0; at < 10; at++) {
      peer.send("A", { sequence: at * 1000, data: block });
      windows.push(peer.take()[0]!.window);
    }
    expect(windows).toEqual([9000, 8000, 7000, 6000, 5000, 4000, 3000, 2000, 1000, 0]);
    peer.send("A", { sequence: 10_000, data: "y" }); // a probe
    expect(peer.take()).toEqual([ack(10_000)]);
    peer.endpoint.consumed(100);
    expect(peer.take()).toEqual([]);
    peer.endpoint.consumed(900);
    expect(peer.take()).toMatchObject([{ flags: "A", window: 1000 }]);
    peer.share = 100;
    peer.send("A", { sequence: 10_000, data: block });
    expect(peer.take()).toMatchObject([{ acknowledgment: 11_000, window: 0 }]);
    expect(peer.received.length).toBe(11_000);
  });

  test("what goes over the window is cut off, and its end not seen", () => {
    const peer = new Peer();
    peer.share = 500;
    peer.consumes = false;
    peer.open({ windowShift: null });
    peer.send("AF", { data: "x".repeat(800) });
    expect(peer.received.length).toBe(500);
    expect(peer.events).toEqual(["opened"]);
  });

  test("an acknowledgment waits for an answer to go with, unless two segments have come", () => {
    const peer = new Peer();
    peer.acknowledges = false;
    peer.open({ mss: 100 });
    peer.send("A", { data: "x".repeat(100) });
    expect(peer.take()).toEqual([]);
    peer.endpoint.send(Buffer.from("answer"));
    expect(peer.take()).toMatchObject([{ acknowledgment: 100, data: "answer" }]);
    peer.send("A", { sequence: 100, data: "x".repeat(100) });
    peer.send("A", { sequence: 200, data: "x".repeat(100) });
    expect(peer.take()).toEqual([ack(300, 6)]);
    peer.send("A", { sequence: 300, data: "x" });
    peer.endpoint.acknowledge();
    peer.endpoint.acknowledge();
    expect(peer.take()).toEqual([ack(301, 6)]);
  });

  test("a probe of what is old is answered, one of the future dropped", () => {
    const peer = new Peer();
    peer.open();
    peer.send("A", { data: "abc" });
    peer.take();
    peer.send("A", { sequence: 2 });
    expect(peer.take()).toEqual([ack(3)]);
    peer.send("A", { sequence: 2, data: "c" });
    expect(peer.take()).toEqual([ack(3)]);
    peer.send("A", { sequence: 3, acknowledgment: 10_000 });
    expect(peer.take()).toEqual([ack(3)]);
  });
});

describe("sending", () => {
  test("in pieces of the guest's size, as far as its window", () => {
    const peer = new Peer();
    peer.open({ mss: 1000, window: 2500 });
    expect(peer.endpoint.send(Buffer.alloc(4000, "x"))).toBe(true);
    expect(peer.take().map(({ sequence, data, flags }) => [sequence, data.length, flags])).toEqual([[0, 1000, "A"], [1000, 1000, "A"]]); // the rest of 500 is not worth a packet
    peer.send("A", { acknowledgment: 1000, window: 2500 });
    expect(peer.take().map(({ sequence, data, flags }) => [sequence, data.length, flags])).toEqual([[2000, 1000, "A"]]);
    peer.send("A", { acknowledgment: 3000, window: 2500 });
    expect(peer.take().map(({ sequence, data, flags }) => [sequence, data.length, flags])).toEqual([[3000, 1000, "AP"]]);
  });

  test("a closed window is probed, ever more rarely, for as long as the guest answers", () => {
    const peer = new Peer();
    peer.open({ window: 0 });
    peer.endpoint.send(Buffer.from("abc"));
    expect(peer.take()).toEqual([]);
    for (let probes = 0; probes < 40; probes++) {
      peer.pass(60_000);
      expect(peer.take().length).toBeGreaterThan(0);
      peer.send("A", { acknowledgment: 0, window: 0 });
    }
    expect(peer.take()).toEqual([]);
    peer.send("A", { acknowledgment: 0, window: 100 });
    expect(peer.take()).toMatchObject([{ sequence: 0, data: "abc" }]);
  });

  test("what is not acknowledged is sent again: by the clock, and after three equal acknowledgments", () => {
    const peer = new Peer();
    peer.open({ mss: 100 });
    peer.endpoint.send(Buffer.from("a".repeat(100) + "b".repeat(100) + "c".repeat(100)));
    peer.take();
    peer.pass(999);
    expect(peer.take()).toEqual([]);
    peer.pass(1);
    expect(peer.take()).toMatchObject([{ sequence: 0, data: "a".repeat(100) }]);
    peer.send("A", { acknowledgment: 100 });
    expect(peer.take()).toMatchObject([{ sequence: 100, data: "b".repeat(100) }]); // it was in flight as well: lost too
    peer.send("A", { acknowledgment: 300 });
    peer.endpoint.send(Buffer.from("d".repeat(200)));
    peer.take();
    for (let equal = 0; equal < 3; equal++) peer.send("A", { acknowledgment: 300 });
    expect(peer.take()).toMatchObject([{ sequence: 300, data: "d".repeat(100) }]);
    peer.send("A", { acknowledgment: 300 });
    expect(peer.take()).toEqual([]);
  });

  test("a guest that is gone is given up", () => {
    const peer = new Peer();
    peer.open();
    peer.endpoint.send(Buffer.from("abc"));
    peer.take();
    peer.pass(3_600_000);
    expect(peer.events).toEqual(["opened", "reset", "closed"]);
    expect(peer.take().at(-1)).toMatchObject({ flags: "AR" });
  });

  test("while the link takes nothing, nothing is sent and nobody given up", () => {
    const peer = new Peer();
    peer.open();
    peer.sink.congested = true;
    peer.endpoint.send(Buffer.from("abc"));
    peer.pass(86_400_000);
    expect(peer.take()).toEqual([]);
    peer.sink.congested = false;
    expect(peer.take()).toMatchObject([{ data: "abc" }]);
  });

  test("an idle connection costs nothing and stays", () => {
    const peer = new Peer();
    peer.open();
    expect(peer.endpoint.deadline).toBe(0);
    peer.pass(86_400_000);
    expect(peer.events).toEqual(["opened"]);
  });

  test("whoever sends is held up, and told when to go on", () => {
    const peer = new Peer();
    peer.share = 3000;
    peer.open();
    expect(peer.endpoint.send(Buffer.alloc(2000))).toBe(true);
    expect(peer.endpoint.send(Buffer.alloc(2000))).toBe(false);
    peer.take();
    peer.send("A", { acknowledgment: 2000 });
    expect(peer.events).toEqual(["opened"]);
    peer.send("A", { acknowledgment: 3000 });
    expect(peer.events).toEqual(["opened", "drained"]);
  });
});

describe("ending", () => {
  test("the guest first: its half ends, the other goes on", () => {
    const peer = new Peer();
    peer.open();
    peer.send("AF", { data: "bye" });
    expect(peer.received.toString()).toBe("bye");
    expect(peer.events).toEqual(["opened", "ended"]);
    expect(peer.take()).toEqual([ack(4)]);
    peer.endpoint.send(Buffer.from("more"));
    expect(peer.take()).toMatchObject([{ data: "more", acknowledgment: 4 }]);
    peer.endpoint.end();
    expect(peer.take()).toMatchObject([{ flags: "AF", sequence: 4 }]);
    peer.send("A", { sequence: 4, acknowledgment: 5 });
    expect(peer.events).toEqual(["opened", "ended", "closed"]);
  });

  test("the acknowledgment of the guest's end waits for our own to go with", () => {
    const peer = new Peer();
    peer.acknowledges = false;
    peer.open();
    peer.send("AF", { sequence: 0 });
    expect(peer.events).toEqual(["opened", "ended"]);
    expect(peer.take()).toEqual([]);
    peer.endpoint.end();
    expect(peer.take()).toEqual([{ flags: "AF", sequence: 0, acknowledgment: 1, window: 0, data: "" }]);
    peer.send("A", { sequence: 1, acknowledgment: 1 });
    expect(peer.events).toEqual(["opened", "ended", "closed"]);
  });

  test("what the guest waits for is sent at once, an end with what else the turn brings", () => {
    const peer = new Peer();
    peer.open();
    peer.asked.length = 0;
    peer.endpoint.send(Buffer.from("answer"));
    expect(peer.asked).toEqual(["soon"]);
    peer.endpoint.end();
    expect(peer.asked).toEqual(["soon", "later"]);
    expect(peer.take()).toMatchObject([{ flags: "AFP", data: "answer" }]);
  });

  test("the guest's end is acknowledged without one, a moment later", () => {
    const peer = new Peer();
    peer.acknowledges = false;
    peer.open();
    peer.send("AF", { sequence: 0 });
    expect(peer.take()).toEqual([]);
    peer.endpoint.acknowledge();
    expect(peer.take()).toEqual([ack(1)]);
  });

  test("the server first: it is remembered for a while", () => {
    const peer = new Peer();
    peer.open();
    peer.endpoint.send(Buffer.from("all"));
    peer.endpoint.end();
    expect(peer.take()).toMatchObject([{ flags: "AFP", data: "all" }]);
    peer.send("A", { acknowledgment: 4 });
    peer.send("A", { acknowledgment: 4, data: "still" });
    expect(peer.received.toString()).toBe("still");
    peer.send("AF", { sequence: 5, acknowledgment: 4 });
    expect(peer.take()).toMatchObject([{ flags: "A", acknowledgment: 6 }]);
    expect(peer.endpoint.state).toBe("time-wait");
    peer.send("AF", { sequence: 5, acknowledgment: 4 });
    expect(peer.take()).toMatchObject([{ flags: "A", acknowledgment: 6 }]);
    peer.pass(2000);
    expect(peer.events).toEqual(["opened", "ended", "closed"]);
  });

  test("an end that is lost is sent again, also with the last of the data", () => {
    const peer = new Peer();
    peer.open();
    peer.endpoint.send(Buffer.from("end"));
    peer.endpoint.end();
    peer.take();
    peer.pass(1000);
    expect(peer.take()).toMatchObject([{ flags: "AF", sequence: 0, data: "end" }]);
    peer.send("A", { acknowledgment: 3 });
    expect(peer.take()).toMatchObject([{ flags: "AF", sequence: 3, data: "" }]);
  });

  test("a reset counts if it is exact, and is asked about if it is only close (RFC 5961)", () => {
    const peer = new Peer();
    peer.open();
    peer.send("R", { sequence: 100 });
    expect(peer.take()).toEqual([ack(0)]);
    peer.send("R", { sequence: 100_000_000 });
    peer.send("R", { sequence: -1 });
    peer.send("SA", { sequence: 5 });
    expect(peer.take()).toEqual([ack(0)]);
    expect(peer.events).toEqual(["opened"]);
    peer.send("R", { sequence: 0 });
    expect(peer.events).toEqual(["opened", "reset", "closed"]);
  });

  test("broken off by us", () => {
    const peer = new Peer();
    peer.open();
    peer.endpoint.send(Buffer.from("abc"));
    peer.take();
    peer.endpoint.reset();
    expect(peer.take()).toMatchObject([{ flags: "AR", sequence: 3 }]);
    expect(peer.events).toEqual(["opened", "closed"]);
    expect(peer.endpoint.send(Buffer.from("more"))).toBe(true);
    expect(peer.take()).toEqual([]);
  });
});
