"""The words and phrases that `grammar` puts together."""

from __future__ import annotations


def _list(text: str) -> tuple[str, ...]:
    """The items of `text`, which stand between bars."""
    return tuple(item.strip() for item in text.replace("\n", " ").split("|"))


ADJECTIVES = _list(
    """short|careful|friendly|formal|plain|vivid|practical|honest|gentle|detailed|brief
    |cheerful|patient|firm|polite|modest|lively|sober|thorough|witty|balanced|warm
    |crisp|humble|candid|thoughtful|persuasive|neutral|simple|encouraging"""
)
QUALITIES = _list(
    """old|wooden|rural|coastal|crowded|broken|second-hand|electric|shared|seasonal
    |narrow|heated|public|private|temporary|handmade|frozen|leaking|solar|portable
    |noisy|ancient|community|medieval|miniature|floating|abandoned|tropical|volunteer
    |weekly|underground|regional|family|organic|digital|nocturnal|migrating|foldable
    |insulated|unpaid"""
)
NOUNS = _list(
    """garden|bakery|kitchen|library|bicycle|lighthouse|greenhouse|orchard|railway|museum
    |harbour|classroom|budget|newsletter|timetable|recipe|contract|beehive|clinic
    |bridge|theatre|market|workshop|pension|garage|telescope|aquarium|choir|vineyard
    |canal|laundry|festival|windmill|compost|playground|reservoir|archive|ferry|blanket
    |staircase|chimney|tunnel|pottery|sailing boat|fishing net|tax return|rental flat
    |school trip|night shift|book club|tool shed|rain barrel|sewing machine|coffee roaster
    |fire alarm|water pump|bus route|town council|football club|pet shelter|job interview
    |exhibition|allotment|snow plough|choir rehearsal|insurance claim|wedding speech
    |camp site"""
)
ACTORS = _list(
    """a retired teacher|a new manager|two neighbours|a night nurse|a first-year student
    |a small bakery owner|a bus driver|a young couple|a volunteer group
    |a freelance translator|a hotel receptionist|a village mayor|a carpenter|an apprentice
    |a beekeeper|a tenant|a landlord|a football coach|a museum guide|a pharmacist
    |a single parent|a farmer|a librarian|a tourist|a school cook|a choir director
    |a plumber|a dentist|a fisherman|an accountant|a gardener|a trainee pilot
    |a shop assistant|a grandmother|a cyclist|an electrician|a postal worker
    |a dance teacher|a zoo keeper|a lawyer|a market trader|a shepherd|an office cleaner"""
)
VERBS = _list(
    """repair|organise|clean|insure|sell|plan|measure|advertise|inspect|heat|describe
    |protect|rent out|redesign|paint|finance|move|reopen|document|schedule|restore
    |supervise|share|decorate|store|improve|compare|test|replace|explain|label
    |photograph|maintain|simplify|translate|expand|register|value|ventilate|survey"""
)
TIMES = _list(
    """during a heat wave|after a long winter|before the summer holidays|on a tight budget
    |while working full time|with only two helpers|in a small town|after a sudden flood
    |on a rainy weekend|before an inspection|without a car|during a power cut
    |in the first week of a job|at short notice|when the supplier is late|after moving abroad
    |while caring for a baby|with hardly any experience|on the top floor
    |in the middle of exams|when prices are rising|after the neighbours complained
    |next to a busy road|before the first frost|with borrowed tools
    |when nobody answers the phone|over three evenings|with a broken wrist
    |in a foreign language|before the deadline on Friday|if the weather turns
    |on a remote island|during a strike|after the merger|with ten euros left"""
)
FORMS = _list(
    """letter|speech|poem|paragraph|checklist|notice|product description|diary entry|email
    |dialogue|review|press release|riddle|toast|complaint|apology|invitation|limerick
    |fable|memo|tutorial|job advert|thank-you note|headline|short story"""
)
PURPOSES = _list(
    """a beginner|saving time|a school project|long-term costs|children under ten
    |an older audience|safety|a cold climate|daily use|a shared household|a charity event
    |heavy loads|quiet evenings|frequent travel|people with allergies|a narrow budget
    |learning by doing|a large family|the local economy|keeping records"""
)
AVOIDED = _list(
    """spending more than fifty dollars|disturbing the neighbours|special training
    |using chemicals|asking for help twice|breaking the rules|wasting food
    |losing the receipts|closing for the day|hurting anyone's feelings|a second opinion
    |throwing anything away|working after dark|new equipment|extra paperwork
    |making it boring"""
)
CHANGES = _list(
    """a child of eight can follow it|it sounds less angry|it fits on a postcard
    |every sentence starts with a verb|it no longer repeats itself
    |the order of events is clear|it invites people to reply|it avoids technical terms
    |the most important point comes first|it keeps the facts but drops the jokes
    |it is written in the past tense|it reads like a news item|a stranger would trust it
    |it names no one|it ends with a question"""
)
LABELS = _list(
    """a request|a complaint|a promise|a warning|praise|an excuse|an opinion|a fact|a joke
    |advice|a rumour|an order|a prediction|an apology|a threat|a compliment"""
)
NUMBERS = _list("two|three|four|five|six|seven|eight|nine|ten")
OPENINGS = _list(
    """A good start is to|It usually helps to|The first step is to|Most people forget to
    |Before anything else,|Experience shows that it pays to|In practice you should
    |When in doubt,|The simplest answer is to|If time is short,|A sensible rule is to
    |Once that is settled,"""
)
REASONS = _list(
    """because it keeps the costs visible|so that nobody is surprised later
    |since mistakes are cheap at that stage|because the work then divides itself
    |which saves an afternoon in the end|and it makes the next decision easier
    |so the people involved stay calm|because small problems grow quickly
    |which is easy to check|and it leaves room for bad weather
    |since habits are hard to change afterwards|because trust takes longer than repairs"""
)
ADVICE = _list(
    """write down what is already there|ask two people who have done it|fix a date|measure twice
    |set a little money aside|agree on who decides|start with the smallest part
    |take a picture of the present state|keep the old parts|read the conditions once more
    |tell the neighbours|compare three offers|sort everything by size|plan a short break
    |test it on a quiet day|check the weather|label each box
    |leave the hard part for the morning"""
)
CLOSINGS = _list(
    """In the end, patience matters more than tools.|After that, the rest is routine.
    |A week later, look at it again with fresh eyes.
    |If something still feels wrong, begin once more.|That is usually enough.
    |Everyone involved will thank you for it.|Costs stay below what was feared.
    |The result lasts for years when it is looked after.|Do not hurry the last step."""
)
# An instruction is a lead, a clause and mostly a tail, drawn apart from each other. Leads of the
# second list speak of a text, which is then the task's input.
LEADS = _list(
    """Explain how|Describe the moment when|Write a {adj} {form} about the day
    |List {n} reasons why|Suggest a {adj} way to tell people that|What could go wrong if
    |Who would benefit if|Tell a {adj} story in which|Make a list of {n} questions to ask when
    |Give {n} arguments against the idea that|Prepare a {adj} talk explaining why
    |How would you react if|Draft a {form} announcing that|Estimate what it costs if
    |Imagine that|Which laws matter if|Find {n} {adj} titles for a {form} saying that
    |Argue both sides of whether|Name {n} tools for a day on which|Predict what happens after
    |Come up with a {adj} slogan for the week in which|Outline the steps by which
    |Give {actor} {adj} advice in case|What are the signs that|Plan an afternoon on which
    |Create a quiz of {n} questions about a time when|Justify to {actor} why"""
)
TEXT_LEADS = _list(
    """Rewrite the {form} below, which says that|Correct this {form} claiming that
    |Summarise the text in {n} sentences, knowing that
    |Turn these notes into a {adj} {form} after
    |Decide whether the remark is {label} or {label2}, given that
    |Find {n} facts in the passage showing that|Reply to the message in a {adj} tone, since
    |Continue the story up to the point where|Sort the words below by how useful they are once
    |Point out what the {form} leaves out when|Shorten the text for {actor}, assuming that
    |Write a {adj} ending for the case that"""
)
CLAUSES = _list(
    """{actor} has to {verb} the {thing} {when}|{actor} offers to {verb} a {thing}
    |{actor} and {actor2} {verb} the {thing} together {when}
    |nobody wants to {verb} the {thing} {when}|the {thing} stands next to the {thing2} {when}
    |{actor} sells the {thing} to {actor2}|{actor} wins a {thing} {when}
    |the {thing} costs more than the {thing2}|{actor} asks {actor2} to {verb} the {thing}
    |a {thing} opens {when}|{actor} forgot to {verb} the {thing} and the {thing2}
    |{actor} inherits a {thing} {when}"""
)
TAILS = _list(
    """without {avoid}|for {purpose}|and mention the {thing3}|so that {change}
    |in at most {n} sentences|and finish with {label}|from the view of {actor3}|{when2}
    |as if it were a {form2}|using {n} everyday examples
    |and add a {adj2} remark on the {thing3}"""
)
ENDINGS = (".", ".", ".", "?", "")
