"""A logind for tests: takes commands on standard input, one a line, and says on standard output what is asked of it."""

import os
import sys

import dbus
import dbus.bus
import dbus.lowlevel
import dbus.service
from dbus.mainloop.glib import DBusGMainLoop
from gi.repository import GLib

NAME, PATH, MANAGER = "org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager"


def say(text):
    print(text, flush=True)


class Manager(dbus.service.Object):
    """The manager, as far as the spooler knows it."""

    idle = False
    client = None

    @dbus.service.method(MANAGER, in_signature="ssss", out_signature="h", sender_keyword="sender")
    def Inhibit(self, what, who, why, mode, sender=None):
        self.client = sender
        ours, theirs = os.pipe()
        # When all copies of the other end are closed, the pipe has hung up.
        GLib.io_add_watch(ours, GLib.IO_HUP, lambda *_: say("let go") or os.close(ours))
        say(f"inhibited {what} {who} {mode}")
        descriptor = dbus.types.UnixFd(theirs)
        os.close(theirs)
        return descriptor

    @dbus.service.method(dbus.PROPERTIES_IFACE, in_signature="ss", out_signature="v")
    def Get(self, interface, name):
        return dbus.Boolean(self.idle)

    @dbus.service.signal(MANAGER, signature="b")
    def PrepareForSleep(self, start):
        pass

    @dbus.service.signal(MANAGER, signature="b")
    def PrepareForShutdown(self, start):
        pass

    @dbus.service.signal(dbus.PROPERTIES_IFACE, signature="sa{sv}as")
    def PropertiesChanged(self, interface, changed, invalidated):
        pass

    def forge(self, address):
        """What anybody on the bus can do: a signal in logind's name."""
        stranger = dbus.bus.BusConnection(address)
        signal = dbus.lowlevel.SignalMessage(PATH, MANAGER, "PrepareForShutdown")
        signal.append(True, signature="b")
        signal.set_destination(self.client)
        stranger.send_message(signal)
        stranger.flush()
        # The answer comes after the bus has taken the signal.
        stranger.get_name_owner(NAME)

    def command(self, address, line):
        word, _, value = line.strip().partition(" ")
        if word == "sleep":
            self.PrepareForSleep(value == "yes")
        elif word == "shutdown":
            self.PrepareForShutdown(value == "yes")
        elif word == "idle":
            self.idle = value == "yes"
            self.PropertiesChanged(MANAGER, {"IdleHint": self.idle}, [])
        elif word == "forge":
            self.forge(address)


def main():
    address = sys.argv[1]
    DBusGMainLoop(set_as_default=True)
    bus = dbus.bus.BusConnection(address)
    name = dbus.service.BusName(NAME, bus)
    manager = Manager(bus, PATH, name)
    loop = GLib.MainLoop()
    # Without a buffer of its own: what was read already would not be announced again.
    commands = os.fdopen(0, "rb", buffering=0)

    def on_input(*_):
        line = commands.readline()
        if not line:
            loop.quit()
            return False
        manager.command(address, line.decode())
        return True

    GLib.io_add_watch(commands, GLib.PRIORITY_DEFAULT, GLib.IO_IN | GLib.IO_HUP, on_input)
    say("ready")
    loop.run()


main()
