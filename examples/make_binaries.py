# /// script
# requires-python = ">=3.11"
# dependencies = ["python-docx==1.2.0", "reportlab==5.1.0"]
# ///
"""Write the two PDF and the two DOCX files of the example handbook.

Their text stands below, in a small markup: ``# `` and ``## `` are headings, ``- `` starts a list item,
``| a | b |`` is a table row (the first row of a table is its head), ``---`` starts a new page, and a
blank line ends a paragraph. With the pinned libraries a second run writes the same bytes.

    uv run examples/make_binaries.py            # or: pip install python-docx reportlab, then python
"""

import io
import zipfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from docx import Document
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import PageBreak, Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

HANDBOOK = Path(__file__).parent / "handbook"
ZIP_DATE = (2025, 3, 1, 0, 0, 0)

SAFETY_MANUAL = """
# Vessel Safety Manual

Edition 9, in force from 15 January 2025. It replaces edition 8 of June 2022, all copies of which are to
be destroyed. Document MFH-SM-01. Keeper: Priya Nandakumar, Safety Officer, room Kittiwake, Tide House.

| Vessel | Built | Passengers | Crew at least |
| Isolde Marr | 2009 | 420 | 11 |
| Petra Lindqvist | 1998 | 240 | 7 |
| Sorrel Lass | 2016 | 96 | 3 |

## 1. What this manual is for

This manual tells the crew of our three ships what to do when something goes wrong, and what to do every
day so that it goes wrong less often. It is written to be read before an emergency, not during one.
During an emergency use the yellow cards, which hang beside every muster list and say the same in fewer
words.

Where the manual and the orders of the master differ, the master is right. Tell the safety officer
afterwards, so that one of the two can be put straight.

## 2. Three rules above all others

- Anybody may stop a job. A deckhand in the first week may stop the chief engineer. No reason has to be
given at the time, and nobody is ever asked to apologise for having stopped one.
- Raise the alarm first, act second. A small fire that nobody knows about is a large fire.
- Count. Count the passengers, the crew, the cylinders, the minutes. Guesses are not numbers.

## 3. Who does what

The master commands. The mate leads on deck, the chief engineer below. The purser is responsible for the
passengers and for the count. On the Sorrel Lass, which has no purser, the deckhand counts.

The designated person ashore is Håkon Brandvold. Every member of the crew may ring him at any hour about
safety without telling anybody else first. His deputy is Zoë Kjærstad.
---
# Part A: Alarm and muster

## 4. The general alarm

The alarm is given by the bell and the ship's whistle, and then by voice, in English and in Norwegian.
The words are on the yellow card. Do not change them: passengers who travel every week know them by
heart, and notice.

When you hear the alarm, stop what you are doing, take your lifejacket and go to your station. Do not go
to your cabin first. Do not use the lift.

## 5. Muster stations

| Vessel | Station | Place |
| Isolde Marr | A | forward lounge, deck 5 |
| Isolde Marr | B | aft lounge, deck 4 |
| Isolde Marr | C | open deck 6, port side |
| Petra Lindqvist | A | main lounge, deck 5 |
| Petra Lindqvist | B | open deck aft |
| Sorrel Lass | A | the only lounge |

Muster leaders wear a green armband. It is kept in the pocket on the back of the muster list, together
with a torch, a clicker and a pencil.

The purser must report the count to the bridge within 6 minutes of the alarm. If the count is wrong,
count again from the other end of the room. If it is wrong twice, two persons search the ship from top
to bottom, and every searched room gets a chalk mark on the door.

## 6. Passengers who need help

People who told us that they need help are on the purser's blue list, with their seat. Each of them is
given one member of the crew by name. The two evacuation chairs of the Isolde Marr hang at the forward
stairs on deck 4 and in the lift lobby on deck 6.

Children who travel alone wear a yellow wristband. They are taken to the information desk, not to the
muster station nearest to where they happen to be.
---
# Part B: Fire

## 7. If you find a fire

Press the nearest call point, shut the door, tell the bridge on channel 8 or by telephone 222. Say where
it is, what burns and whether anybody is missing. If you can put it out with one extinguisher, do. If
one is not enough, leave, and shut the door again.

## 8. Fire teams

The Isolde Marr has two teams of three, the Petra Lindqvist one. The fire team of the Isolde Marr meets
at the locker on frame 62, deck 3. The leader is the second engineer.

A breathing set holds 1,800 litres of air, enough for about 35 minutes of hard work. Turn back when the
gauge shows 90 bar, whatever you are doing. The entry controller writes down names, times and pressures
on the slate, and calls a team out after 15 minutes in any case.

## 9. Fixed systems

| Space | System | Released by |
| Engine room, Isolde Marr | 18 cylinders of carbon dioxide | order of the master |
| Engine room, Petra Lindqvist | water mist | chief engineer |
| Car decks | drencher, sections of 24 metres | bridge |
| Galley | wet chemical | cook |

Before carbon dioxide is released the engine room must be empty and counted. There is a delay of 40
seconds between the alarm in the space and the gas. After release the room stays shut for at least six
hours. Opening it earlier lets in air, and the fire begins again.

On the car deck use the drencher early. Two sections at once are the most that the pumps can feed: the
one above the fire and the one on its windward side. Keep the scuppers clear, or the water stays on deck
and the ship lists.

## 10. Electric vehicles

Battery fires need a great deal of water for a long time. Electric cars are therefore parked in lane 2
of the Isolde Marr, next to the drencher valves, and in the stern of the Petra Lindqvist. A car whose
battery has been damaged in an accident is not taken at all. Charging during the crossing is forbidden.
---
# Part C: Person overboard and abandoning ship

## 11. Person overboard

Shout, throw a ring, point. Whoever saw the person fall does nothing else but point, with a stretched
arm, until relieved. The bridge presses the red button, which marks the place on the chart.

The rescue boat must be in the water within 4 minutes by day and six by night. Its crew is three: the
mate, one deckhand and one from the engine. All three wear the orange suits. The engine of the rescue
boat is run for ten minutes every Sunday, in gear, and the run is logged.

In the Sound the water is at its coldest in March, at about 4 °C. A person without a suit can hold on to
a line for ten minutes, hardly longer. Therefore the ladder is rigged while the boat is still on its
way, and the recovery net is made ready on the lee side.

## 12. Abandoning ship

Only the master gives the order, and gives it by voice. The order is: "Leave the ship, leave the ship,
gå fra borde." No bell or whistle means abandon ship; there have been misunderstandings in the past.

| Vessel | Liferafts | Persons in each | Slides |
| Isolde Marr | 6 | 100 | 2 |
| Petra Lindqvist | 5 | 65 | 0 |
| Sorrel Lass | 3 | 50 | 0 |

The evacuation slide of the Isolde Marr takes 95 seconds to inflate. Nobody steps on it before the crew
member at the foot has waved the green flag. Shoes with heels stay on board. Children go down on the lap
of a grown-up.

Liferafts are sent to be serviced in February, two at a time, so that the ships can sail with a reduced
number of passengers in the meantime. The number allowed is posted at the gangway.

## 13. In the raft

Cut the painter, stream the drogue, close the canopy, take the pills against seasickness. Then count
again, and pass the figure to the other rafts by voice. The emergency beacon goes into the raft with the
master.
---
# Part D: Everyday dangers

## 14. Enclosed spaces

Tanks, void spaces and the chain locker can kill without any smell. Nobody enters one without permit
PT-7, signed by the chief engineer and valid for one shift.

- Ventilate for at least 45 minutes.
- Measure at three heights. The oxygen must be at least 20.8 per cent at each of them.
- Somebody stands at the opening, all the time, with a radio and a line, and does nothing else.
- If the person inside does not answer, raise the alarm. Do not go in after them. Most of those who die
in tanks are would-be rescuers.

## 15. The car deck

Passengers leave the car deck before the ship sails and come back only when called. Lashings are used
when the forecast gives more than 17 metres per second, and for motor caravans and lorries always, from
October to April.

A motor caravan may carry at most two gas bottles of 11 kilograms each, shut and capped. Spare petrol
goes ashore, even in a proper can. The white line 60 centimetres from the bow door must be kept free,
since the door has a will of its own.

## 16. Gangways and quays

Two hands for yourself until you stand on something that does not move. The net under the gangway is
rigged even for a stay of five minutes. In ice follow the harbour master's winter memo.

## 17. Working aloft and over the side

A harness, a second person and the key of the radar in your own pocket. No work aloft in gusts above 12
metres per second. The bosun's chair of the Petra Lindqvist was condemned in 2024; borrow the one of the
Isolde Marr.
---
# Part E: Drills, records and equipment

## 18. Drills

| Drill | How often | Led by |
| Fire | every week | mate |
| Abandon ship | every two weeks | master |
| Rescue boat in the water | every month | mate |
| Steering failure | every three months | master |
| Entry into enclosed spaces | every two months | chief engineer |
| Black-out at sea | twice a year | chief engineer |

A drill that went badly is a good drill if it is written down. The log needs four things: what was
practised, who took part, what went wrong, and what will be changed. A log that says "all in order"
three times running will bring the safety officer on board.

New crew take part in a fire drill and an abandon-ship drill before their first sailing with passengers.
There are no exceptions for people who come from other companies, however large.

## 19. Near misses

Near misses are reported on the green card. Cards go into the box in the mess or by photograph to the
safety officer, extension 4300. In 2024 there were 63 cards. The longest had four pages and a drawing.

## 20. Equipment on board

| Item | Isolde Marr | Petra Lindqvist | Sorrel Lass |
| Adult lifejackets | 462 | 264 | 106 |
| Immersion suits | 14 | 9 | 4 |
| Breathing sets | 8 | 4 | 0 |
| Portable extinguishers | 71 | 38 | 12 |
| Stretchers | 3 | 2 | 1 |
| Line-throwing rockets | 4 | 4 | 2 |

Infant lifejackets are being replaced in spring 2025; the figures will be in the next edition.

## 21. Changes since edition 8

The time for the count was cut from eight minutes to six. The section on electric vehicles is new. The
release delay in the engine room was lengthened after the trials of October 2024. The list of telephone
numbers was taken out, because it was never right; use the one on the intranet.
"""

ANNUAL_REVIEW = """
# Annual Review 2024

Morvane Ferries and Harbours, a cooperative of the five harbour communities. Approved by the members'
meeting at Kilverry on 22 March 2025.

## A word from the Managing Director

Dear members,

the year began with a storm that took down the mast on Hessay, and it ended with a burst hose at
Kilverry. In between we carried 412,380 passengers, more than in any year before. I should like to thank
those who were awake so that the rest of us could sleep, and those who brought cake.

Two decisions of 2024 will keep us busy for a while. The first is the new ship. The second is that, from
2026 on, nobody who works for us will earn less than €17.20 an hour. Both cost money. Both are right.

Siobhán Ó Dálaigh

## The year in figures

| | 2024 | 2023 |
| Passengers | 412,380 | 399,960 |
| Cars | 61,204 | 60,377 |
| Bicycles | 18,950 | 15,112 |
| Pallets of freight | 22,731 | 23,480 |
| Sailings planned | 9,846 | 9,802 |
| Cancelled for weather | 74 | 58 |
| Cancelled for technical reasons | 19 | 31 |
| On time, within five minutes | 96.2 % | 95.1 % |

A sailing counts as punctual if it arrives no more than five minutes late. The best month was June with
98.4 per cent, the worst was November.
---
## Passengers by route

| Route | Passengers | Share |
| Port Brannock – Kilverry | 171,508 | 41.6 % |
| Port Brannock – Sandhavn | 128,642 | 31.2 % |
| Port Brannock – Ostrevik | 75,930 | 18.4 % |
| Port Brannock – Little Sorrel | 36,300 | 8.8 % |

The largest growth was on the Little Sorrel route, up by 11 per cent, thanks to a puffin that was on
television.

## Money

Revenue came to €11.84 million, of which €4.1 million was the grant of the island councils. The surplus
of €312,000 goes into the fund for the new ship. Fuel was the largest single cost after wages: we burned
2.91 million litres, three per cent less than in 2023, because the Isolde Marr had her hull cleaned in
April and now sails at a slightly lower speed in the evening.

## The new ship

In September the board ordered a battery ferry from the yard Kvamsholm Verft. She will be called Ragnhild
Voe, after the first woman to hold a master's certificate on the islands.

The price is €18.6 million. Delivery is planned for April 2027. She will carry 300 passengers and 45
cars, and will take over the Kilverry route, where a charging mast of 4.5 megawatts is to be built.

The Petra Lindqvist will then become the reserve ship. There are no plans to sell her.

## People

At the end of the year we were 143 employees, 88 of them at sea. Five apprentices began in August. Four
colleagues left us for good after long years of service; Gudrun Aspevoll, cook on the Isolde Marr for 31
years, took her recipe for fish soup with her, but left a copy.

Sick leave fell from 6.3 to 5.4 per cent. The works council, led by Wiebke Oltmanns, agreed with the
board on the new leave policy, which came into force on 1 March 2025.

## Outlook

In 2025 we shall renew the fenders at Sandhavn, at a cost of €265,000, and open the new waiting room at
Ostrevik. It will have a stove. The members' meeting of 2026 will be held there, on 21 March.
"""

ONBOARDING_GUIDE = """
# Welcome aboard: the first weeks

For new colleagues at sea and ashore. Issued by the people team, extension 4205. Fourth edition, 10
February 2025.

## Before you come

You will get three things by post: your contract, twice, of which one copy comes back to us; a form for
your bank; and a ferry ticket to Port Brannock, if you do not live there. The ticket is valid for
luggage, a cat and a bicycle, but not for furniture. For furniture ring the freight shed.

Sea staff need a medical examination before the first day. Our company doctor is Dr Henrike Saalfeld, at
Kirkegata 9. We pay.

## Your first day

Please be at the reception of Tide House at 08:15 on your first day. Ask for Inês Carvalhal or whoever
looks least busy. You will get a staff card, a key and a jacket, and you will sign for all of them.

Then you meet your *fadder*. This is an old word for a godparent. A fadder is a colleague from another
department who answers all the questions that you do not want to ask your boss. Your fadder stays with
you for the first 8 weeks and has two hours a week for it.

## Your first week

| Day | Shore staff | Sea staff |
| Monday | reception, tour of Tide House | reception, tour of the ships |
| Tuesday | IT introduction, room W6 | fire drill on the Petra Lindqvist |
| Wednesday | a day at a harbour of your choice | sea survival, part one |
| Thursday | your own department | sea survival, part two |
| Friday | herring lunch with the director | herring lunch with the director |

Sea survival takes place in the pool at Haugmoen. It is cold. Bring a towel and leave your pride at
home.

## Working with us

### Trial period

The trial period lasts four months. In that time either side may give notice of two weeks. There is a
talk after six weeks and another after fourteen; bring a list of what you would change.

### Pay

Pay day is the 25th of the month. If that is a Sunday or a holiday, the money comes on the working day
before. Your pay slip is in the staff portal. Paper slips can be had from finance, who will sigh.

### Clothes

Crew and counter staff wear the uniform. You get two jackets, three jerseys and a cap, and you may spend
€160 a year on shoes of your own choice, provided that the soles are non-slip.

### Food

The mess at the workshop serves lunch from 11:30 to 13:15. A lunch costs €4.80 and is taken from your
pay. Vegetarians put their name on the list by nine o'clock. The soup is free for those who were out on
the quay in the snow.

### Travelling for nothing

Staff travel free on all our ships. So do up to three people whom you name once a year, related to you
or not. They need a card from the people team.

## What you must know by the end of the first month

- where the first-aid box nearest to your place of work is
- how to report a near miss, and that nobody is punished for one
- whom to ring at night: the duty controller, extension 4410
- the names of all the islands, in the right spelling
- that the leave policy changed on 1 March 2025, so do not trust what colleagues tell you about it

## If you are unhappy

Tell your fadder, or Wiebke Oltmanns of the works council. If it is serious and you want to stay
unnamed, write to our ombudswoman, Tove Lindqvist-Amundsen, who is not employed by us and has a letter
box at the chandler's shop.
"""

FUEL_CONTRACT = """
# Fuel supply contract: summary

Contract FB-2024-19 with Østlund Bunker AS. Summary for the duty controllers and the finance office,
written by Amélie Rouvière on 17 June 2024. The contract itself is binding; this summary is only easier
to read. The signed original is in the company safe.

## Parties and term

The supplier is Østlund Bunker AS of Haugmoen. The contract runs from 1 July 2024 to 30 June 2027. It is
extended by a year unless one side gives notice at least six months before the end.

It takes the place of contract FB-2021-07 with Nordkai Energi, which ended on 30 June 2024. Delivery
notes with the old number must not be signed any more.

## What is supplied

Marine gas oil, summer quality from April to September and winter quality for the rest of the year. The
sulphur content must be below 0.08 per cent, which is better than the law demands.

We must take at least 2.6 million litres a year. There is no upper limit. If we take less, we pay €12
for each 1,000 litres that are missing.

## Price

The price is the daily quotation of the Haugmoen exchange plus a margin of €38 for each 1,000 litres.
For deliveries on a public holiday the margin is €55. Østlund invoices once a week; we pay within 21
days.

Either side may ask for talks about the margin once a year, in May. If the talks fail, nothing changes.

## Delivery

| Harbour | Days | Time | Largest delivery |
| Port Brannock, fuel berth | Tuesday, Friday | before 05:30 | 32,000 litres |
| Sandhavn | Wednesday | 21:00 to 23:00 | 14,000 litres |
| Ostrevik | every second Thursday | after 20:15 | 9,500 litres |

Orders are placed by the duty controller by 14:00 on the day before. The telephone number of the
dispatcher is on the yellow card in the Lookout. The driver must not begin before one of our people
stands at the valve, and a boom must lie around the ship.

## Quality

A sealed sample is drawn from each delivery, one litre, by the drip method. Samples are kept for 12
months in the shed at the fuel berth. If there is a dispute, the laboratory of Dr Pål Ravndal decides,
and the side that was wrong pays for it.

## When things go wrong

| Event | What Østlund pays |
| Late by more than one hour | €450 for each hour begun |
| No delivery at all | the extra cost of another supplier |
| Water above the limit | pumping out and a new delivery |
| Spill on the quay | the clean-up, without a limit |

Damage must be reported in writing within five days. Use the form at the end of the contract, and send a
copy to the safety officer.

## Who to talk to

Our contact at Østlund is Gunnhild Sætre, who has known our ships for 20 years. On our side the contract
is looked after by the financial controller, and day-to-day matters by the duty controller. Please do
not make arrangements with the drivers, however friendly they are.
"""


@dataclass
class Block:
    """One piece of a document: `kind` is h1, h2, h3, p, li, table or page; only a table has `rows`."""

    kind: str
    text: str = ""
    rows: list[list[str]] = field(default_factory=list)


def parse(text: str) -> list[Block]:
    blocks: list[Block] = []
    marks = {"# ": "h1", "## ": "h2", "### ": "h3", "- ": "li"}
    goes_on = False  # whether a plain line belongs to the last block
    for line in text.strip().splitlines():
        mark = next((m for m in marks if line.startswith(m)), None)
        if line == "---":
            blocks.append(Block("page"))
        elif not line.strip():
            pass
        elif line.startswith("|"):
            if not (blocks and blocks[-1].kind == "table"):
                blocks.append(Block("table"))
            blocks[-1].rows.append([cell.strip() for cell in line[1:-1].split("|")])
        elif mark:
            blocks.append(Block(marks[mark], line.removeprefix(mark)))
        elif goes_on:
            blocks[-1].text += f" {line.strip()}"
        else:
            blocks.append(Block("p", line.strip()))
        goes_on = bool(line.strip()) and blocks[-1].kind in ("p", "li")
    return blocks


def write_pdf(path: Path, text: str, *, title: str, author: str, footer: str) -> None:
    """Lay `text` out on A4 pages with `footer` and the page number below each."""
    body = ParagraphStyle("body", fontName="Times-Roman", fontSize=11, leading=15, spaceAfter=7)
    head = {"fontName": "Helvetica-Bold", "textColor": colors.HexColor("#0B4F6C"), "keepWithNext": 1}
    styles = {
        "h1": ParagraphStyle("h1", fontSize=19, leading=24, spaceAfter=10, **head),
        "h2": ParagraphStyle("h2", fontSize=13, leading=17, spaceBefore=8, spaceAfter=4, **head),
        "p": body,
        "li": ParagraphStyle("li", parent=body, leftIndent=14, bulletIndent=3),
    }
    flow = []
    for block in parse(text):
        if block.kind == "page":
            flow.append(PageBreak())
        elif block.kind == "table":
            flow += [pdf_table(block.rows), Spacer(1, 9)]
        else:
            bullet = "•" if block.kind == "li" else None
            flow.append(Paragraph(block.text, styles[block.kind], bulletText=bullet))

    def draw_footer(canvas: Canvas, _: object) -> None:
        canvas.setFont("Helvetica", 8)
        canvas.drawString(25 * mm, 13 * mm, footer)
        canvas.drawRightString(185 * mm, 13 * mm, f"Page {canvas.getPageNumber()}")

    margins = dict.fromkeys(("leftMargin", "rightMargin", "topMargin", "bottomMargin"), 25 * mm)
    doc = SimpleDocTemplate(
        str(path), pagesize=A4, title=title, author=author, invariant=1, pageCompression=1, **margins
    )
    doc.build(flow, onFirstPage=draw_footer, onLaterPages=draw_footer)


def pdf_table(rows: list[list[str]]) -> Table:
    return Table(
        rows,
        hAlign="LEFT",
        style=TableStyle(
            [
                ("FONT", (0, 0), (-1, 0), "Helvetica-Bold", 9.5),
                ("FONT", (0, 1), (-1, -1), "Helvetica", 9.5),
                ("BACKGROUND", (0, 0), (-1, 0), colors.HexColor("#DCE9EF")),
                ("LINEBELOW", (0, 0), (-1, -1), 0.4, colors.grey),
            ]
        ),
    )


def write_docx(path: Path, text: str, *, title: str, author: str, changed: datetime) -> None:
    """Write `text` with Word's own heading, list and table styles."""
    doc = Document()
    for block in parse(text):
        if block.kind == "h1":
            doc.add_heading(block.text, level=0)
        elif block.kind in ("h2", "h3"):
            doc.add_heading(block.text, level=int(block.kind[1]) - 1)
        elif block.kind == "table":
            table = doc.add_table(rows=0, cols=len(block.rows[0]), style="Light Grid Accent 1")
            for row in block.rows:
                for cell, value in zip(table.add_row().cells, row, strict=True):
                    cell.text = value
        elif block.kind == "li":
            doc.add_paragraph(block.text, style="List Bullet")
        else:
            paragraph = doc.add_paragraph()
            for index, part in enumerate(block.text.split("*")):  # every second part is in italics
                paragraph.add_run(part).italic = index % 2 == 1 or None
    doc.core_properties.title, doc.core_properties.author = title, author
    doc.core_properties.created = doc.core_properties.modified = changed
    doc.core_properties.last_modified_by, doc.core_properties.comments = author, ""
    buffer = io.BytesIO()
    doc.save(buffer)
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():  # saved again, because python-docx stamps members with the time of day
            info = zipfile.ZipInfo(name, ZIP_DATE)
            info.compress_type = zipfile.ZIP_DEFLATED
            new.writestr(info, old.read(name))


def main() -> None:
    write_pdf(
        HANDBOOK / "safety/vessel-safety-manual.pdf", SAFETY_MANUAL, title="Vessel Safety Manual",
        author="Priya Nandakumar", footer="MFH-SM-01, edition 9",
    )  # fmt: skip
    write_pdf(
        HANDBOOK / "reports/annual-review-2024.pdf", ANNUAL_REVIEW, title="Annual Review 2024",
        author="Morvane Ferries and Harbours", footer="Morvane Ferries and Harbours, Annual Review 2024",
    )  # fmt: skip
    write_docx(
        HANDBOOK / "people/onboarding-guide.docx", ONBOARDING_GUIDE, title="Welcome aboard",
        author="Inês Carvalhal", changed=datetime(2025, 2, 10, 9, 0, tzinfo=UTC),
    )  # fmt: skip
    write_docx(
        HANDBOOK / "suppliers/fuel-contract-summary.docx", FUEL_CONTRACT, title="Fuel supply contract",
        author="Amélie Rouvière", changed=datetime(2024, 6, 17, 16, 30, tzinfo=UTC),
    )  # fmt: skip


if __name__ == "__main__":
    main()
